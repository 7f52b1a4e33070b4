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

// Half of a float32: its sign, its exponent, and seven bits of its fraction.
struct bf16 { unsigned short bits; };

// To nearest, ties to even.
__device__ __forceinline__ u32 bf16_bits(float x) {
  u32 bits = __float_as_uint(x);
  if (x != x) return 0x7fffu;  // rounding the bits of a NaN may make it infinite
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
// Two numbers; the first in the lower half.
__device__ __forceinline__ u32 bf16_pair(float low, float high) {
#ifdef EMULATED
  return bf16_bits(low) | bf16_bits(high) << 16;
#else
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

// Activations: what layers hand to layers, and the gradients of that. With products in bfloat16 they are kept so, too;
// weights, sums, statistics, losses and the gradients of weights are always float32.
#ifdef ACT_BF16
typedef bf16 act;
#else
typedef float act;
#endif

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
template <class T> __device__ __forceinline__ T rounded(float x);
template <> __device__ __forceinline__ float rounded<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 rounded<bf16>(float x) { return bf16{(unsigned short)bf16_bits(x)}; }

// Four neighbours at once, where they begin at a multiple of their size.
__device__ __forceinline__ float4 four_of(const float* x) { return *(const float4*)x; }
__device__ __forceinline__ float4 four_of(const bf16* x) {
  uint2 pairs = *(const uint2*)x;
  return float4{__uint_as_float(pairs.x << 16), __uint_as_float(pairs.x & 0xffff0000u), __uint_as_float(pairs.y << 16),
                __uint_as_float(pairs.y & 0xffff0000u)};
}
__device__ __forceinline__ void set_four(float* y, float a, float b, float c, float d) { *(float4*)y = float4{a, b, c, d}; }
__device__ __forceinline__ void set_four(bf16* y, float a, float b, float c, float d) {
  *(uint2*)y = uint2{bf16_pair(a, b), bf16_pair(c, d)};
}

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
