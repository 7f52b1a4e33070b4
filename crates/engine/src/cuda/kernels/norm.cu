// Normalisation over the last axis fused with the activation that follows it.

enum Kind : u32 { NO_NORM, RMS, LAYER };
enum Act : u32 { NONE, SILU, RELU, RELU2, GELU, MISH, TANH, ELU, SIGMOID, SOFTPLUS };

__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

__device__ __forceinline__ float activate(float x, u32 act) {
  switch (act) {
    case SILU: return x * sigmoid(x);
    case RELU: return fmaxf(x, 0.0f);
    case RELU2: return x > 0.0f ? x * x : 0.0f;
    case GELU: return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    case MISH: return x * tanhf(softplus(x));
    case TANH: return tanhf(x);
    case ELU: return x > 0.0f ? x : expm1f(x);
    case SIGMOID: return sigmoid(x);
    case SOFTPLUS: return softplus(x);
    default: return x;
  }
}

__device__ __forceinline__ float activate_slope(float x, u32 act) {
  switch (act) {
    case SILU: {
      float s = sigmoid(x);
      return s * (1.0f + x * (1.0f - s));
    }
    case RELU: return x > 0.0f ? 1.0f : 0.0f;
    case RELU2: return x > 0.0f ? 2.0f * x : 0.0f;
    case GELU: {
      float t = tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
      return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 3.0f * 0.044715f * x * x);
    }
    case MISH: {
      float t = tanhf(softplus(x));
      return t + x * (1.0f - t * t) * sigmoid(x);
    }
    case TANH: {
      float t = tanhf(x);
      return 1.0f - t * t;
    }
    case ELU: return x > 0.0f ? 1.0f : expf(x);
    case SIGMOID: {
      float s = sigmoid(x);
      return s * (1.0f - s);
    }
    case SOFTPLUS: return sigmoid(x);
    default: return 1.0f;
  }
}

// ---- Rows. `lanes` neighbouring threads, a power of two, take a row, `N` numbers each at a time; what a thread reads first
// of a row stays in its registers, which is all of it up to 8192 numbers. Blocks have 256 threads, or one row's.

// Shared memory of a block, used for one thing after another.
__device__ __forceinline__ float* scratch() {
  __shared__ float4 memory[512];
  return (float*)memory;
}

// The sums of two numbers over the threads of a row, the same in all of them.
__device__ __forceinline__ float2 row_sums(float2 v, u32 lanes) {
  for (u32 mask = min(lanes, WARP) / 2; mask > 0; mask /= 2) {
    v.x += __shfl_xor_sync(ALL, v.x, mask);
    v.y += __shfl_xor_sync(ALL, v.y, mask);
  }
  if (lanes <= WARP) return v;
  __shared__ float2 sums[32];
  u32 warp = threadIdx.x / WARP, warps = lanes / WARP, first = warp / warps * warps;
  __syncthreads();  // earlier sums have been read
  if (lane_of_warp() == 0) sums[warp] = v;
  __syncthreads();
  v = float2{0.0f, 0.0f};
  for (u32 w = first; w < first + warps; w++) v.x += sums[w].x, v.y += sums[w].y;
  return v;
}

// Mean and reciprocal deviation from the sums of a row and of its squares (official nets.py, `Norm`).
__device__ __forceinline__ float2 stats_of(float2 sums, u32 n, u32 kind, float epsilon) {
  if (kind == NO_NORM) return float2{0.0f, 1.0f};
  float mean = kind == LAYER ? sums.x / n : 0.0f;
  float variance = sums.y / n - mean * mean;
  variance = variance < 0.0f ? 0.0f : variance;  // NaN stays
  return float2{mean, 1.0f / sqrtf(variance + epsilon)};
}

// Activations of `N` numbers, or their derivatives. Silu has an unrolled loop of its own, as it is used most.
template <u32 N> __device__ __forceinline__ void activate_all(Some<N>& v, u32 act_kind) {
  if (act_kind == SILU) {
#pragma unroll
    for (u32 i = 0; i < N; i++) v.x[i] *= sigmoid(v.x[i]);
    return;
  }
  Some<N> w = v;
#pragma unroll 1
  for (u32 i = 0; i < N; i++) w.x[i] = activate(w.x[i], act_kind);
  v = w;
}
template <u32 N> __device__ __forceinline__ void slope_all(Some<N>& v, u32 act_kind) {
  if (act_kind == SILU) {
#pragma unroll
    for (u32 i = 0; i < N; i++) {
      float s = sigmoid(v.x[i]);
      v.x[i] = s * (1.0f + v.x[i] * (1.0f - s));
    }
    return;
  }
  Some<N> w = v;
#pragma unroll 1
  for (u32 i = 0; i < N; i++) w.x[i] = activate_slope(w.x[i], act_kind);
  v = w;
}

template <u32 N> __device__ __forceinline__ void add_sums(float2& sums, const Some<N>& v) {
#pragma unroll
  for (u32 i = 0; i < N; i++) sums.x += v.x[i], sums.y += v.x[i] * v.x[i];
}
// The parameters of `N` columns; null ones stand for `otherwise`.
template <u32 N> __device__ __forceinline__ Some<N> parameters(const float* p, u32 j, float otherwise) {
  if (p) return load<N>(p + j);
  Some<N> v;
#pragma unroll
  for (u32 i = 0; i < N; i++) v.x[i] = otherwise;
  return v;
}

template <u32 N>
__device__ __forceinline__ void norm_act_rows(const act* x, const float* scale, const float* shift, u32 rows, u32 n, u32 lanes,
                                              u32 kind, u32 act_kind, float epsilon, act* y) {
  u64 row = (u64)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
  u32 first = threadIdx.x % lanes * N, end = row < rows ? n : 0;
  x += row * n, y += row * n;
  Packed<N, act> held{};
  float2 s{0.0f, 0.0f};
  if (first < end) held = packed<N>(x + first);
  if (kind != NO_NORM) {
    add_sums(s, numbers(held));
    for (u32 j = first + lanes * N; j < end; j += lanes * N) add_sums(s, load<N>(x + j));
    s = row_sums(s, lanes);
  }
  s = stats_of(s, n, kind, epsilon);
  for (u32 j = first; j < end; j += lanes * N) {
    Some<N> v = j == first ? numbers(held) : load<N>(x + j);
    Some<N> a = parameters<N>(scale, j, 1.0f), b = parameters<N>(shift, j, 0.0f);
#pragma unroll
    for (u32 i = 0; i < N; i++) v.x[i] = (v.x[i] - s.x) * s.y * a.x[i] + b.x[i];
    activate_all(v, act_kind);
    store(y + j, v);
  }
}

// y = act(norm(x)); null `scale` and `shift` are one and zero. A thread takes `each` numbers at a time: 1, 2, 4 or 8.
KERNEL_1024 norm_act(const act* x, const float* scale, const float* shift, u32 rows, u32 n, u32 each, u32 lanes, u32 kind,
                     u32 act_kind, float epsilon, act* y) {
  wait_for_previous();
  if (each == 8) norm_act_rows<8>(x, scale, shift, rows, n, lanes, kind, act_kind, epsilon, y);
  else if (each == 4) norm_act_rows<4>(x, scale, shift, rows, n, lanes, kind, act_kind, epsilon, y);
  else if (each == 2) norm_act_rows<2>(x, scale, shift, rows, n, lanes, kind, act_kind, epsilon, y);
  else norm_act_rows<1>(x, scale, shift, rows, n, lanes, kind, act_kind, epsilon, y);
}
EXPORT(norm_act)

// Adds up parts [slabs, columns] over the slabs in a fixed order, by one block, for columns `first` to `last`. The
// first n columns go to a [n], if there is one, and the others to b.
__device__ __forceinline__ void finish_columns(const float* parts, u32 slabs, u32 columns, u32 first, u32 last, float* a,
                                               u32 n, float* b) {
  float* sums = scratch();
  u32 width = 1;  // columns at a time
  while (width < last - first && width < blockDim.x) width *= 2;
  u32 each = blockDim.x / width, part = threadIdx.x / width;
  for (u32 start = first; start < last; start += width) {
    u32 column = start + threadIdx.x % width;
    float sum = 0.0f;
    if (column < last) {
#pragma unroll 8
      for (u32 s = part; s < slabs; s += each) sum += __ldcg(parts + (u64)s * columns + column);
    }
    __syncthreads();
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (part > 0 || column >= last) continue;
    for (u32 p = 1; p < each; p++) sum += sums[p * width + threadIdx.x];
    if (column < n && a) a[column] = sum;
    else b[a ? column - n : column] = sum;
  }
}

// One parameter's gradient: writes the sums over this block's rows to part [n].
template <u32 N>
__device__ __forceinline__ void slab_sums(Some<N>& v, u32 n, u32 lanes, float* part) {
  float* sums = scratch();
  for (u32 mask = lanes; mask < WARP; mask *= 2)
#pragma unroll
    for (u32 i = 0; i < N; i++) v.x[i] += __shfl_xor_sync(ALL, v.x[i], mask);
  u32 span = max(lanes, WARP), copies = blockDim.x / span, lane = threadIdx.x % lanes;
  if (copies == 1) {
    if (threadIdx.x % span < lanes && lane * N < n) store(part + lane * N, v);
    return;
  }
  __syncthreads();
  if (threadIdx.x % span < lanes) store(sums + (threadIdx.x / span * lanes + lane) * N, v);
  __syncthreads();
  for (u32 j = threadIdx.x; j < min(n, lanes * N); j += blockDim.x) {
    float sum = 0.0f;
    for (u32 c = 0; c < copies; c++) sum += sums[c * lanes * N + j];
    part[j] = sum;
  }
}

// Inputs and outputs of the gradient of a norm with its activation. A block goes through `slab` rows; `parts` [slabs,
// columns] receives their share of the parameters' gradients, that of the scale first.
struct NormGrad {
  const act *x, *dy;
  const float *scale, *shift;
  u32 rows, n, lanes, kind, act_kind;
  float epsilon;
  u32 slab;
  act* dx;
  float *dscale, *dshift, *parts;  // the first two may be null; the third is null if there is one slab
};

// Of `N` numbers: normalised, and the gradients with respect to the scaled and to the normalised numbers.
template <u32 N> struct Slopes { Some<N> normed, dz, dx; };
template <u32 N>
__device__ __forceinline__ Slopes<N> slopes(const NormGrad& g, u32 j, const Some<N>& v, const Some<N>& dy, float2 s) {
  Some<N> a = parameters<N>(g.scale, j, 1.0f), b = parameters<N>(g.shift, j, 0.0f);
  Slopes<N> r;
#pragma unroll
  for (u32 i = 0; i < N; i++) r.normed.x[i] = (v.x[i] - s.x) * s.y, r.dz.x[i] = r.normed.x[i] * a.x[i] + b.x[i];
  slope_all(r.dz, g.act_kind);
#pragma unroll
  for (u32 i = 0; i < N; i++) r.dz.x[i] *= dy.x[i], r.dx.x[i] = r.dz.x[i] * a.x[i];
  return r;
}

template <u32 N> __device__ __forceinline__ void add_to(float* to, const Some<N>& v, bool before) {
  Some<N> sum = v;
  if (before) {
    sum = load<N>(to);
#pragma unroll
    for (u32 i = 0; i < N; i++) sum.x[i] += v.x[i];
  }
  store(to, sum);
}

template <u32 N, bool WIDE>
__device__ __forceinline__ void norm_act_grad_rows(const NormGrad& g) {
  u32 at_once = blockDim.x / g.lanes, stride = g.lanes * N, first = threadIdx.x % g.lanes * N;
  u32 columns = ((g.dscale ? 1 : 0) + (g.dshift ? 1 : 0)) * g.n;
  float* of_scale = g.parts ? g.parts + (u64)blockIdx.x * columns : g.dscale;
  float* of_shift = g.parts ? of_scale + (g.dscale ? g.n : 0) : g.dshift;
  Some<N> scale_sums{}, shift_sums{};
  for (u32 step = 0; step < g.slab; step += at_once) {
    u64 row = (u64)blockIdx.x * g.slab + step + threadIdx.x / g.lanes;
    u32 end = row < g.rows ? g.n : 0;
    const act *x = g.x + row * g.n, *dy = g.dy + row * g.n;
    act* dx = g.dx + row * g.n;
    Packed<N, act> held_x{}, held_dy{};
    if (first < end) held_x = packed<N>(x + first), held_dy = packed<N>(dy + first);
    float2 s{0.0f, 0.0f};
    if (g.kind != NO_NORM) {
      add_sums(s, numbers(held_x));
      if constexpr (WIDE)
        for (u32 j = first + stride; j < end; j += stride) add_sums(s, load<N>(x + j));
      s = row_sums(s, g.lanes);
    }
    s = stats_of(s, g.n, g.kind, g.epsilon);
    float2 t{0.0f, 0.0f};  // sums of `Slopes::dx`, and of its product with the normalised row
    Some<N> held{};
    if (first < end) {
      Slopes<N> r = slopes(g, first, numbers(held_x), numbers(held_dy), s);
      held = r.dx;
#pragma unroll
      for (u32 i = 0; i < N; i++) {
        t.x += r.dx.x[i], t.y += r.dx.x[i] * r.normed.x[i];
        scale_sums.x[i] += r.dz.x[i] * r.normed.x[i], shift_sums.x[i] += r.dz.x[i];
      }
    }
    for (u32 j = first + stride; WIDE && j < end; j += stride) {  // beyond the registers; still one thread's alone
      Slopes<N> r = slopes(g, j, load<N>(x + j), load<N>(dy + j), s);
      if (g.dshift) add_to(of_shift + j, r.dz, step > 0);
#pragma unroll
      for (u32 i = 0; i < N; i++) {
        t.x += r.dx.x[i], t.y += r.dx.x[i] * r.normed.x[i];
        r.dz.x[i] *= r.normed.x[i];
      }
      if (g.dscale) add_to(of_scale + j, r.dz, step > 0);
    }
    if (g.kind != NO_NORM) t = row_sums(t, g.lanes);
    float sum = g.kind == LAYER ? t.x / g.n : 0.0f;
    // Where rounding made the variance negative it was set to zero and has no gradient.
    bool flows = g.kind == RMS || (g.kind == LAYER && s.y < 1.0f / sqrtf(g.epsilon));
    float product = flows ? t.y / g.n : 0.0f;
    for (u32 j = first; j < end; j += stride) {
      Some<N> v = !WIDE || j == first ? numbers(held_x) : load<N>(x + j);
      if (WIDE && j > first) held = slopes(g, j, v, load<N>(dy + j), s).dx;
#pragma unroll
      for (u32 i = 0; i < N; i++) held.x[i] = s.y * (held.x[i] - sum - (v.x[i] - s.x) * s.y * product);
      store(dx + j, held);
      if (!WIDE) break;
    }
  }
  if (g.dscale) slab_sums(scale_sums, g.n, g.lanes, of_scale);
  if (g.dshift) slab_sums(shift_sums, g.n, g.lanes, of_shift);
}

#define NORM_GRAD_ARGS                                                                                                  \
  const act *x, const float *scale, const float *shift, const act *dy, u32 rows, u32 n, u32 each, u32 lanes, u32 kind, \
      u32 act_kind, float epsilon, u32 slab, act *dx, float *dscale, float *dshift, float *parts, u32 *counter
#define NORM_GRAD_VALUES \
  x, scale, shift, dy, rows, n, each, lanes, kind, act_kind, epsilon, slab, dx, dscale, dshift, parts, counter

template <bool WIDE> __device__ __forceinline__ void norm_act_grad_block(NORM_GRAD_ARGS) {
  NormGrad g{x, dy, scale, shift, rows, n, lanes, kind, act_kind, epsilon, slab, dx, dscale, dshift, parts};
  if (each == 8) norm_act_grad_rows<8, WIDE>(g);
  else if (each == 4) norm_act_grad_rows<4, WIDE>(g);
  else if (each == 2) norm_act_grad_rows<2, WIDE>(g);
  else norm_act_grad_rows<1, WIDE>(g);
  if (!counter || !last_to_arrive(counter, gridDim.x)) return;
  u32 columns = ((dscale ? 1 : 0) + (dshift ? 1 : 0)) * n;
  finish_columns(parts, gridDim.x, columns, 0, columns, dscale, n, dshift);
}

// dx and the gradients of the parameters, [n] each, where not null. Parts of several slabs are added up by the last
// block to finish, if there is a counter, else by norm_act_grad_finish.
KERNEL_1024 norm_act_grad(NORM_GRAD_ARGS) {
  wait_for_previous();
  norm_act_grad_block<false>(NORM_GRAD_VALUES);
}
EXPORT(norm_act_grad)

// The same for rows of more than `lanes` times `each` numbers.
KERNEL_1024 norm_act_grad_wide(NORM_GRAD_ARGS) {
  wait_for_previous();
  norm_act_grad_block<true>(NORM_GRAD_VALUES);
}
EXPORT(norm_act_grad_wide)

// Adds up the parts, 32 columns per block.
KERNEL_1024 norm_act_grad_finish(const float* parts, u32 slabs, u32 columns, u32 n, float* dscale, float* dshift) {
  wait_for_previous();
  u32 first = blockIdx.x * 32;
  finish_columns(parts, slabs, columns, first, min(first + 32, columns), dscale, n, dshift);
}
EXPORT(norm_act_grad_finish)

// silu(a) b of the halves of each row [rows, 2 n] -> [rows, n], `each` numbers per thread.
template <u32 N> __device__ __forceinline__ void swiglu_some(const act* x, u32 rows, u32 n, act* y) {
  u64 i = global_thread() * N;
  if (i >= (u64)rows * n) return;
  u64 at = i / n * 2 * n + i % n;
  Some<N> a = load<N>(x + at), b = load<N>(x + at + n);
#pragma unroll
  for (u32 k = 0; k < N; k++) a.x[k] *= sigmoid(a.x[k]) * b.x[k];
  store(y + i, a);
}

KERNEL swiglu(const act* x, u32 rows, u32 n, u32 each, act* y) {
  wait_for_previous();
  if (each == 8) swiglu_some<8>(x, rows, n, y);
  else swiglu_some<1>(x, rows, n, y);
}
EXPORT(swiglu)

template <u32 N> __device__ __forceinline__ void swiglu_grad_some(const act* x, const act* dy, u32 rows, u32 n, act* dx) {
  u64 i = global_thread() * N;
  if (i >= (u64)rows * n) return;
  u64 at = i / n * 2 * n + i % n;
  Some<N> a = load<N>(x + at), b = load<N>(x + at + n), d = load<N>(dy + i);
#pragma unroll
  for (u32 k = 0; k < N; k++) {
    float s = sigmoid(a.x[k]), of_b = d.x[k] * a.x[k] * s;
    a.x[k] = d.x[k] * b.x[k] * s * (1.0f + a.x[k] * (1.0f - s));
    b.x[k] = of_b;
  }
  store(dx + at, a);
  store(dx + at + n, b);
}

KERNEL swiglu_grad(const act* x, const act* dy, u32 rows, u32 n, u32 each, act* dx) {
  wait_for_previous();
  if (each == 8) swiglu_grad_some<8>(x, dy, rows, n, dx);
  else swiglu_grad_some<1>(x, dy, rows, n, dx);
}
EXPORT(swiglu_grad)
