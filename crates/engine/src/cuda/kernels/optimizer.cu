// The optimizer step of all tensors together (ops/optimizer.rs), in two launches: norms, and the update itself. Tensors
// are cut into slices, one for each block of 256 threads. Sums over slices are float64, in a fixed order, whichever
// block finishes last and adds them up.

#define TENSORS 88u  // that fit into the arguments of one launch, which are 4096 bytes at most
#define SLICE 8192u  // numbers

// Some tensors, by their addresses: `end` counts the slices of this one and those before it. If `param` is null, `grad`
// is only checked for bad numbers.
struct Tensors {
  float *param[TENSORS], *grad[TENSORS], *rms[TENSORS], *momentum[TENSORS];
  u32 n[TENSORS], end[TENSORS];
  float decay[TENSORS];
};

// The tensor that this block works on, and which of its numbers.
struct Slice {
  u32 tensor, first, last, part, parts;
};
__device__ __forceinline__ Slice slice_of(const Tensors& t, u32 count) {
  u32 low = table_row(t.end, count, blockIdx.x), start = low ? t.end[low - 1] : 0, part = blockIdx.x - start;
  return Slice{low, part * SLICE, min((part + 1) * SLICE, t.n[low]), part, t.end[low] - start};
}

// The sum of one element of each of `parts` pairs from `x` on, which other blocks wrote; in thread 0.
__device__ __forceinline__ double total(const double* x, u32 parts) {
  double sum = 0.0;
  for (u32 i = threadIdx.x; i < parts; i += blockDim.x) sum += __ldcg(x + 2 * i);
  return block_sum(sum);
}

// Calls `f(i, count)` for this thread's share of numbers `first` to `last`, four at a time.
template <class F>
__device__ __forceinline__ void each_four(u32 first, u32 last, F f) {
  for (u32 i = first + 4 * threadIdx.x; i < last; i += 4 * blockDim.x) f(i, min(4u, last - i));
}
__device__ __forceinline__ float4 load_four(const float* x, u32 i, u32 count) {
  if (count == 4 && (u64)(x + i) % 16 == 0) return *(const float4*)(x + i);
  return float4{x[i], count > 1 ? x[i + 1] : 0.0f, count > 2 ? x[i + 2] : 0.0f, count > 3 ? x[i + 3] : 0.0f};
}
__device__ __forceinline__ void store_four(float* x, u32 i, u32 count, float4 v) {
  if (count == 4 && (u64)(x + i) % 16 == 0) {
    *(float4*)(x + i) = v;
    return;
  }
  x[i] = v.x;
  if (count > 1) x[i + 1] = v.y;
  if (count > 2) x[i + 2] = v.z;
  if (count > 3) x[i + 3] = v.w;
}

// Computes for each tensor the sum of squares of its gradient and the factor that clips it: NaN if the gradient has a
// number that is not finite. `sums` has a pair for each slice; this launch begins with tensor and slice `tensor0`,
// `slice0`.
KERNEL norms(const __grid_constant__ Tensors t, u32 count, u32 tensor0, u32 slice0, float agc, float smallest, double* sums,
             double* squares, float* clips, u32* arrived) {
  wait_for_previous();
  Slice s = slice_of(t, count);
  const float *grad = t.grad[s.tensor], *param = t.param[s.tensor];
  float of_grad = 0.0f, of_param = 0.0f;
  bool bad = false;
  each_four(s.first, s.last, [&](u32 i, u32 n) {
    float4 g = load_four(grad, i, n);
    of_grad += g.x * g.x + g.y * g.y + g.z * g.z + g.w * g.w;
    bad = bad || !(fmaxf(fmaxf(fabsf(g.x), fabsf(g.y)), fmaxf(fabsf(g.z), fabsf(g.w))) <= 3.4028234e38f) ||
          (g.x != g.x) || (g.y != g.y) || (g.z != g.z) || (g.w != g.w);  // fmaxf ignores NaN
    if (!param) return;
    float4 p = load_four(param, i, n);
    of_param += p.x * p.x + p.y * p.y + p.z * p.z + p.w * p.w;
  });
  double a = block_sum(bad ? (double)__uint_as_float(0x7fc00000u) : (double)of_grad), b = block_sum(of_param);
  u32 tensor = tensor0 + s.tensor;
  double* own = sums + 2 * (u64)slice0 + 2 * (u64)blockIdx.x;
  if (threadIdx.x == 0) own[0] = a, own[1] = b;
  if (!last_to_arrive(arrived + tensor, s.parts)) return;
  own -= 2 * (u64)s.part;
  a = total(own, s.parts), b = total(own + 1, s.parts);
  if (threadIdx.x > 0) return;
  float clip = 1.0f;
  if (agc > 0.0f) clip = 1.0f / fmaxf((float)sqrt(a) / (agc * fmaxf((float)sqrt(b), smallest)), 1.0f);
  squares[tensor] = param ? a : 0.0;  // tensors that are only checked have no part in the norm
  clips[tensor] = a != a ? __uint_as_float(0x7fc00000u) : clip;
}
EXPORT(norms)

// The first of `count` tensors whose clip is NaN, the same in all threads; `count` where there is none.
__device__ __forceinline__ u32 first_bad(const float* clips, u32 count) {
  __shared__ u32 firsts[32];
  u32 first = count;
  for (u32 i = threadIdx.x; i < count; i += blockDim.x)
    if (clips[i] != clips[i]) first = min(first, i);
  first = min_among(first, WARP);
  if (lane_of_warp() == 0) firsts[threadIdx.x / WARP] = first;
  __syncthreads();
  for (u32 w = 0; w < blockDim.x / WARP; w++) first = min(first, firsts[w]);
  return first;
}

struct Rule {
  float clip, lr, eps, beta1, beta2, new1, new2, correct1, correct2, decay;
  u32 nesterov;
};

// Updates one number; returns its change.
__device__ __forceinline__ float apply(const Rule& r, float& param, float& grad, float& rms, float& momentum) {
  float g = grad * r.clip, v = r.beta2 * rms + r.new2 * (g * g);
  grad = g;
  rms = v;
  float scaled = g / (sqrtf(v / r.correct2) + r.eps), m = r.beta1 * momentum + r.new1 * scaled;
  momentum = m;
  if (r.nesterov) m = r.beta1 * m + r.new1 * scaled;
  float change = -r.lr * (m / r.correct1 + r.decay * param);
  param += change;
  return change;
}

// Updates its tensors, unless one of all `tensors` is bad. `varying` [3] has the learning rate and the bias
// corrections. The last launch (with the number of all slices in `slices`, otherwise 0) writes verdict [4]: the norms
// of gradients, changes and parameters, and the first bad tensor or -1.
KERNEL update(const __grid_constant__ Tensors t, u32 count, u32 tensor0, u32 slice0, u32 tensors, u32 slices,
              const float* varying, float eps, float beta1, float beta2, float new1, float new2, u32 nesterov,
              const double* squares, const float* clips, double* sums, u32* arrived, float* verdict) {
  wait_for_previous();
  Slice s = slice_of(t, count);
  u32 bad = first_bad(clips, tensors);
  float changes = 0.0f, params = 0.0f;
  if (bad == tensors) {
    float *param = t.param[s.tensor], *grad = t.grad[s.tensor], *rms = t.rms[s.tensor], *momentum = t.momentum[s.tensor];
    Rule r{clips[tensor0 + s.tensor], varying[0], eps, beta1, beta2, new1, new2, varying[1], varying[2],
           t.decay[s.tensor], nesterov};
    each_four(s.first, s.last, [&](u32 i, u32 n) {
      float4 p = load_four(param, i, n), g = load_four(grad, i, n), v = load_four(rms, i, n), m = load_four(momentum, i, n);
      float4 change{apply(r, p.x, g.x, v.x, m.x), apply(r, p.y, g.y, v.y, m.y), apply(r, p.z, g.z, v.z, m.z),
                    apply(r, p.w, g.w, v.w, m.w)};
      store_four(param, i, n, p);
      store_four(grad, i, n, g);
      store_four(rms, i, n, v);
      store_four(momentum, i, n, m);
      changes += change.x * change.x;
      params += p.x * p.x;
      if (n > 1) changes += change.y * change.y, params += p.y * p.y;
      if (n > 2) changes += change.z * change.z, params += p.z * p.z;
      if (n > 3) changes += change.w * change.w, params += p.w * p.w;
    });
  }
  double a = block_sum(changes), b = block_sum(params);
  u64 own = 2 * ((u64)slice0 + blockIdx.x);
  if (threadIdx.x == 0) sums[own] = a, sums[own + 1] = b;
  if (slices == 0 || !last_to_arrive(arrived, gridDim.x)) return;
  a = total(sums, slices), b = total(sums + 1, slices);
  double of_grads = 0.0;
  for (u32 i = threadIdx.x; i < tensors; i += blockDim.x) of_grads += squares[i];
  of_grads = block_sum(of_grads);
  if (threadIdx.x > 0) return;
  verdict[0] = (float)sqrt(of_grads);
  verdict[1] = (float)sqrt(a);
  verdict[2] = (float)sqrt(b);
  verdict[3] = bad == tensors ? -1.0f : (float)bad;
}
EXPORT(update)

#define PAIRS 160u

struct Pairs {
  const float* source[PAIRS];
  float* target[PAIRS];
  u32 n[PAIRS], end[PAIRS];  // `end` counts blocks of 1024 numbers
};

// target = mix source + (1 - mix) target for each pair, unless a verdict names a bad tensor.
KERNEL ema(const __grid_constant__ Pairs t, u32 count, float mix, const float* verdict) {
  wait_for_previous();
  if (verdict && verdict[3] >= 0.0f) return;
  u32 low = table_row(t.end, count, blockIdx.x);
  u32 i = 4 * ((blockIdx.x - (low ? t.end[low - 1] : 0)) * blockDim.x + threadIdx.x), n = t.n[low];
  if (i >= n) return;
  n = min(4u, n - i);
  // With a mix of 1 the old target must not matter, even if it is NaN.
  float4 s = load_four(t.source[low], i, n), v = mix == 1.0f ? s : load_four(t.target[low], i, n);
  float keep = 1.0f - mix;
  store_four(t.target[low], i, n,
             float4{mix * s.x + keep * v.x, mix * s.y + keep * v.y, mix * s.z + keep * v.z, mix * s.w + keep * v.w});
}
EXPORT(ema)

#define LOOKED_AT 200u

struct Finite {
  const void* x[LOOKED_AT];
  u32 n[LOOKED_AT], end[LOOKED_AT], wide[(LOOKED_AT + 31) / 32 * 2];  // `wide` has a bit for each
};

// For each slice of `slice` numbers, how many of them are not finite.
KERNEL count_bad(const __grid_constant__ Finite t, u32 count, u32 slice, float* counts) {
  wait_for_previous();
  u32 tensor = table_row(t.end, count, blockIdx.x), part = blockIdx.x - (tensor ? t.end[tensor - 1] : 0);
  Either x{t.x[tensor], t.wide[tensor / 32] >> tensor % 32 & 1};
  u32 first = part * slice, last = min(first + slice, t.n[tensor]);
  double bad = 0.0;
  for (u32 i = first + threadIdx.x; i < last; i += blockDim.x) bad += fabsf(x[i]) <= 3.4028234e38f ? 0.0 : 1.0;
  bad = block_sum(bad);
  if (threadIdx.x == 0) counts[blockIdx.x] = bad;
}
EXPORT(count_bad)
