// The start of every kernel file. `EMULATED` is set if kernels are compiled for the processor (emulator.h).
#ifndef EMULATED
#define KERNEL extern "C" __global__ void
// The same for blocks of up to 1024 threads, which leaves 64 registers for each.
#define KERNEL_1024 extern "C" __global__ void __launch_bounds__(1024)
#define EXPORT(name)
#define EXPORT_MEETING(name)
#define SHARED(type, name) extern __shared__ __align__(1024) char shared_bytes[]; type* name = (type*)shared_bytes
#endif

// Whether four warps together can multiply matrices in shared memory (wgmma.cuh): on Hopper alone.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(EMULATED)
#define WARPGROUPS
#endif

typedef unsigned u32;
typedef unsigned long long u64;
typedef unsigned char u8;
#define WARP 32u
#define ALL 0xffffffffu

// Every kernel calls this before it touches memory: the next kernel may start when all blocks of this one have come
// here (programmatic dependent launch), and itself waits here until this one has ended and its writes are visible. So
// at most two kernels are under way. What a kernel reads before this call, or by `__ldg`, must not have been written by
// the kernel just before it. Packed weights are read like that: the kernel that packs them keeps the next one from
// starting (`WAIT_ALONE`), and another kernel comes in between (ops/scan).
enum Waiting { WAIT, WAIT_ALONE };
template <Waiting HOW = WAIT>
__device__ __forceinline__ void wait_for_previous() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  if (HOW == WAIT) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The upper half of a float32: its sign, its exponent, and seven bits of its fraction.
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

// The type of activations (outputs of layers, and their gradients): bfloat16 if products are. Weights, sums,
// statistics, losses and the gradients of weights are always float32.
#ifdef ACT_BF16
typedef bf16 act;
#else
typedef float act;
#endif

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
template <class T> __device__ __forceinline__ T rounded(float x);
template <> __device__ __forceinline__ float rounded<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 rounded<bf16>(float x) { return bf16{(unsigned short)bf16_pair(x, 0.0f)}; }

// `N` neighbouring numbers, read and written in pieces of up to 16 bytes, for which addresses must be aligned.
template <u32 N> struct Some { float x[N]; };
template <u32 N, class T> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Packed { T x[N]; };

template <u32 N, class T> __device__ __forceinline__ Packed<N, T> packed(const T* x) { return *(const Packed<N, T>*)x; }
template <u32 N, class T> __device__ __forceinline__ Some<N> numbers(const Packed<N, T>& x) {
  Some<N> y;
#pragma unroll
  for (u32 i = 0; i < N; i++) y.x[i] = number(x.x[i]);
  return y;
}
template <u32 N, class T> __device__ __forceinline__ Some<N> load(const T* x) { return numbers(packed<N>(x)); }
template <u32 N> __device__ __forceinline__ void store(float* y, const Some<N>& x) {
  Packed<N, float> p;
#pragma unroll
  for (u32 i = 0; i < N; i++) p.x[i] = x.x[i];
  *(Packed<N, float>*)y = p;
}
template <u32 N> __device__ __forceinline__ void store(bf16* y, const Some<N>& x) {
  if constexpr (N == 1) {
    *y = rounded<bf16>(x.x[0]);
  } else {
    Packed<N / 2, u32> p;
#pragma unroll
    for (u32 i = 0; i < N / 2; i++) p.x[i] = bf16_pair(x.x[2 * i], x.x[2 * i + 1]);
    *(Packed<N / 2, u32>*)y = p;
  }
}

template <u32 N> __device__ __forceinline__ Some<N> load_either(const void* x, u32 wide, u64 i) {
  return wide ? load<N>((const float*)x + i) : load<N>((const bf16*)x + i);
}
template <u32 N> __device__ __forceinline__ void store_either(void* y, u32 wide, u64 i, const Some<N>& v) {
  if (wide) store((float*)y + i, v);
  else store((bf16*)y + i, v);
}

// Numbers of either type, for kernels whose inputs may be activations or float32.
struct Either {
  const void* x;
  u32 wide;  // float32
  __device__ __forceinline__ float operator[](u64 i) const { return wide ? ((const float*)x)[i] : number(((const bf16*)x)[i]); }
};

// If results are rounded to bfloat16, the faster functions are exact enough.
#ifdef ACT_BF16
__device__ __forceinline__ float fast_exp(float x) { return __expf(x); }
__device__ __forceinline__ float fast_divide(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ float fast_tanh(float x) { return 1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * x)); }
#else
__device__ __forceinline__ float fast_exp(float x) { return expf(x); }
__device__ __forceinline__ float fast_divide(float a, float b) { return a / b; }
__device__ __forceinline__ float fast_tanh(float x) { return tanhf(x); }
#endif
__device__ __forceinline__ float sigmoid(float x) { return fast_divide(1.0f, 1.0f + fast_exp(-x)); }

// Four neighbouring numbers at once, aligned to their size.
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

// The index of this thread in a one-dimensional grid.
__device__ __forceinline__ u64 global_thread() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ u64 global_warp() { return global_thread() / WARP; }
__device__ __forceinline__ u32 lane_of_warp() { return threadIdx.x % WARP; }

// The tensor that `block` takes, in a table of tensors that is part of a kernel's arguments (4096 bytes at most): `end`
// counts the thread blocks of each tensor and of those before it.
__device__ __forceinline__ u32 table_row(const u32* end, u32 count, u32 block) {
  u32 low = 0, high = count - 1;
  while (low < high) {
    u32 middle = (low + high) / 2;
    if (end[middle] <= block) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Sums, maxima and minima over `width` neighbouring threads of a warp, a power of two: the same in all of them, and in the
// same order every time.
template <class T>
__device__ __forceinline__ T sum_among(T x, u32 width) {
  for (u32 mask = width / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(ALL, x, mask);
  return x;
}
__device__ __forceinline__ float max_among(float x, u32 width) {
  for (u32 mask = width / 2; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, mask));
  return x;
}
__device__ __forceinline__ u32 min_among(u32 x, u32 width) {
  for (u32 mask = width / 2; mask > 0; mask /= 2) x = min(x, __shfl_xor_sync(ALL, x, mask));
  return x;
}

// The sum over those of these threads that come before this one, which is number `lane`.
__device__ __forceinline__ float sum_before(float x, u32 lane, u32 width) {
  for (u32 by = 1; by < width; by *= 2) {
    float other = __shfl_up_sync(ALL, x, by);
    if (lane >= by) x += other;
  }
  x = __shfl_up_sync(ALL, x, 1);
  return lane > 0 ? x : 0.0f;
}

// Over the 32 threads of a warp.
__device__ __forceinline__ float warp_sum(float x) { return sum_among(x, WARP); }
__device__ __forceinline__ float warp_max(float x) { return max_among(x, WARP); }

// Whether this block is the last of `blocks` to arrive here. It may then read what the others wrote before (past the L1
// cache, with __ldcg), in an order that does not depend on which block is last. `count` is zero before and after.
__device__ __forceinline__ bool last_to_arrive(u32* count, u32 blocks) {
  if (blocks == 1) {
    __syncthreads();
    return true;
  }
  __shared__ u32 last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(count, 1u) == blocks - 1;
    if (last) *count = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

__device__ __forceinline__ double warp_sum_double(double x) { return sum_among(x, WARP); }

// The sum over all threads of a block, in thread 0.
__device__ __forceinline__ double block_sum(double x) {
  __shared__ double sums[32];
  x = warp_sum_double(x);
  __syncthreads();  // earlier sums have been read
  if (lane_of_warp() == 0) sums[threadIdx.x / WARP] = x;
  __syncthreads();
  if (threadIdx.x > 0) return 0.0;
  for (u32 w = 1; w < blockDim.x / WARP; w++) x += sums[w];
  return x;
}
