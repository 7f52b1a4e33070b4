// What every kernel file starts with. `EMULATED` is set where kernels are compiled for the processor (emulator.h).
#ifndef EMULATED
#define KERNEL extern "C" __global__ void
#define EXPORT(name)
#define SHARED(type, name) extern __shared__ __align__(16) char shared_bytes[]; type* name = (type*)shared_bytes
#endif

typedef unsigned u32;
typedef unsigned long long u64;
typedef unsigned char u8;
#define WARP 32u
#define ALL 0xffffffffu

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The number of this thread among all of a one-dimensional grid.
__device__ __forceinline__ u64 global_thread() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ u64 global_warp() { return global_thread() / WARP; }
__device__ __forceinline__ u32 lane_of_warp() { return threadIdx.x % WARP; }

// Sums and maxima over the 32 threads of a warp, the same in all of them and in the same order every time.
__device__ __forceinline__ float warp_sum(float x) {
  for (u32 mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(ALL, x, mask);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (u32 mask = 16; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, mask));
  return x;
}
__device__ __forceinline__ double warp_sum_double(double x) {
  for (u32 mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(ALL, x, mask);
  return x;
}
