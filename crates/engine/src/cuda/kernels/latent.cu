// Categorical distributions in groups of `classes` logits: samples, divergence, entropy, log-probability. Each is mixed
// with a share `unimix` of the uniform distribution. `lanes` neighbouring threads, a power of two up to a warp, take a
// group, `E` neighbouring classes each at a time; what a thread reads first stays in its registers, which hold all of a
// group of up to 32 E classes.

// How a group is shared among threads.
struct Share {
  u32 classes, lanes, vector;  // `vector` where `E` classes may be read at once
  __device__ __forceinline__ u32 lane() const { return threadIdx.x % lanes; }
  __device__ __forceinline__ float sum(float x) const { return sum_among(x, lanes); }
  __device__ __forceinline__ float max(float x) const { return max_among(x, lanes); }
  // The sum over the lanes before this one.
  __device__ __forceinline__ float before(float x) const { return sum_before(x, lane(), lanes); }
};
#define SHARE u32 classes, u32 lanes, u32 vector
#define SHARE_VALUE Share{classes, lanes, vector}

// `E` classes from `x` on, of which `count` exist; the rest is `otherwise`.
template <u32 E, class T>
__device__ __forceinline__ Some<E> classes_at(const T* x, u32 count, const Share& s, float otherwise) {
  if (s.vector && count >= E) return load<E>(x);
  Some<E> v;
#pragma unroll
  for (u32 i = 0; i < E; i++) v.x[i] = i < count ? number(x[i]) : otherwise;
  return v;
}

// A group's logits and the statistics of their softmax.
template <u32 E> struct Group {
  Share s;
  const act* x;
  u32 first, end;  // this thread's first class; where the group ends (0 if there is no group)
  Some<E> held;
  float most, total, unimix;

  __device__ __forceinline__ Some<E> at(u32 k) const {
    return k == first ? held : classes_at<E>(x + k, end - k, s, -3.4028234e38f);
  }
  __device__ __forceinline__ float soft(float logit) const { return fast_divide(fast_exp(logit - most), total); }
  __device__ __forceinline__ float mixed(float logit) const { return (1.0f - unimix) * soft(logit) + unimix / s.classes; }
  // Finite even if a probability underflows.
  __device__ __forceinline__ float log_mixed(float logit) const {
    return unimix > 0.0f ? logf(mixed(logit)) : logit - most - logf(total);
  }
  // Calls f(k, logit) for the thread's own classes.
  template <class F> __device__ __forceinline__ void each(F f) const {
    for (u32 k = first; k < end; k += s.lanes * E) {
      Some<E> v = at(k);
#pragma unroll
      for (u32 i = 0; i < E; i++)
        if (k + i < end) f(k + i, v.x[i]);
    }
  }
  // Stores f(k, logit, its number of `other`) for the thread's own classes; `other` is not read where null.
  template <class F> __device__ __forceinline__ void map(act* to, const act* other, F f) const {
    for (u32 k = first; k < end; k += s.lanes * E) {
      Some<E> v = at(k), w{};
      if (other) w = classes_at<E>(other + k, end - k, s, 0.0f);
#pragma unroll
      for (u32 i = 0; i < E; i++) v.x[i] = f(k + i, v.x[i], w.x[i]);
      if (s.vector && end - k >= E) {
        store(to + k, v);
        continue;
      }
#pragma unroll
      for (u32 i = 0; i < E; i++)
        if (k + i < end) to[k + i] = rounded<act>(v.x[i]);
    }
  }
};

// The group whose first class is at `x`; empty if not `here`. All threads of a warp must call this together.
template <u32 E>
__device__ __forceinline__ Group<E> group_at(const act* x, const Share& s, float unimix, bool here) {
  Group<E> g{s, x, s.lane() * E, here ? s.classes : 0, {}, -3.4028234e38f, 0.0f, unimix};
  if (g.first < g.end) g.held = classes_at<E>(x + g.first, g.end - g.first, s, -3.4028234e38f);
  g.each([&](u32, float logit) { g.most = fmaxf(g.most, logit); });
  g.most = s.max(g.most);
  g.each([&](u32, float logit) { g.total += fast_exp(logit - g.most); });
  g.total = s.sum(g.total);
  return g;
}

// The class in whose share of the unit interval `u` falls: the number of shares that end at or before it. With NaN it
// is the first class.
template <u32 E> __device__ __forceinline__ u32 quantile(const Group<E>& g, float u) {
  float total = 0.0f, carried = 0.0f, chosen = 0.0f;
  g.each([&](u32, float logit) { total += g.mixed(logit); });
  total = g.s.sum(total);
  for (u32 start = 0; start < g.s.classes; start += g.s.lanes * E) {
    u32 k = start + g.first;
    Some<E> v{};
    float own = 0.0f;
    if (k < g.end) v = g.at(k);
#pragma unroll
    for (u32 i = 0; i < E; i++) own += v.x[i] = k + i < g.end ? g.mixed(v.x[i]) : 0.0f;
    float sum = carried + g.s.before(own);
#pragma unroll
    for (u32 i = 0; i < E; i++) {
      sum += v.x[i];
      chosen += k + i + 1 < g.end && sum <= u * total ? 1.0f : 0.0f;
    }
    carried += g.s.sum(own);
  }
  return (u32)g.s.sum(chosen);
}

// The class of the largest log-probability plus noise, ties to the lowest index.
template <u32 E> __device__ __forceinline__ u32 perturbed_max(const Group<E>& g, const float* noise) {
  u32 best = 0xffffffffu;
  float most = 0.0f;
  g.each([&](u32 k, float logit) {
    // Without a mixture, logits differ from log-probabilities by a constant only, and keep exact ties.
    float value = (g.unimix > 0.0f ? g.log_mixed(logit) : logit) + noise[k];
    if (best == 0xffffffffu || value > most) best = k, most = value;
  });
  for (u32 mask = g.s.lanes / 2; mask > 0; mask /= 2) {
    float value = __shfl_xor_sync(ALL, most, mask);
    u32 k = __shfl_xor_sync(ALL, best, mask);
    if (k != 0xffffffffu && (best == 0xffffffffu || value > most || (value == most && k < best))) best = k, most = value;
  }
  return __shfl_sync(ALL, best, lane_of_warp() - g.s.lane()); // NaN compares differently in every lane
}

enum Noise : u32 { UNIFORM, GUMBEL, COUNTER };

template <u32 E>
__device__ __forceinline__ void sample_groups(const act* logits, const float* noise, u32 kind, const Draws& draws, u32 groups,
                                              const Share& s, float unimix, act* one_hot, float* index) {
  u64 i = global_thread() / s.lanes, at = i * s.classes;
  bool here = i < groups;
  Group<E> g = group_at<E>(logits + at, s, unimix, here);
  u32 chosen;
  if (kind == GUMBEL) chosen = perturbed_max(g, noise + at);
  else chosen = quantile(g, !here ? 0.0f : kind == COUNTER ? draws.uniform(i) : noise[i]);
  if (here && index && s.lane() == 0) index[i] = chosen;
  if (one_hot) g.map(one_hot + at, nullptr, [&](u32 k, float, float) { return k == chosen ? 1.0f : 0.0f; });
}

// Draws a class for each group: with given noise, Gumbel for each class or uniform for each group, or with numbers drawn
// here. Writes one-hot vectors, or indices [groups], where not null.
KERNEL sample(const act* logits, const float* noise, u32 kind, DRAWS, u32 groups, SHARE, float unimix, act* one_hot,
              float* index) {
  wait_for_previous();
  if (vector == 4) sample_groups<4>(logits, noise, kind, DRAWS_VALUE, groups, SHARE_VALUE, unimix, one_hot, index);
  else sample_groups<8>(logits, noise, kind, DRAWS_VALUE, groups, SHARE_VALUE, unimix, one_hot, index);
}
EXPORT(sample)

template <u32 E>
__device__ __forceinline__ void mixed_grad_groups(const act* logits, const act* dy, u32 groups, const Share& s, float unimix,
                                                  act* dx) {
  u64 i = global_thread() / s.lanes, at = i * s.classes;
  Group<E> g = group_at<E>(logits + at, s, unimix, i < groups);
  float mean = 0.0f;
  g.each([&](u32 k, float logit) { mean += g.soft(logit) * number(dy[at + k]); });
  mean = s.sum(mean);
  g.map(dx + at, dy + at, [&](u32, float logit, float d) { return (1.0f - unimix) * g.soft(logit) * (d - mean); });
}

// Turns the gradient by mixed probabilities into that by the logits.
KERNEL mixed_grad(const act* logits, const act* dy, u32 groups, SHARE, float unimix, act* dx) {
  wait_for_previous();
  if (vector == 4) mixed_grad_groups<4>(logits, dy, groups, SHARE_VALUE, unimix, dx);
  else mixed_grad_groups<8>(logits, dy, groups, SHARE_VALUE, unimix, dx);
}
EXPORT(mixed_grad)

// ---- Sums over the groups of each row: a warp takes a row, several groups at a time.

struct Divergence { float raw, entropy_p, entropy_q; };

template <u32 E>
__device__ __forceinline__ Divergence divergence(const act* p, const act* q, u64 row, bool here, u32 groups, const Share& s,
                                                 float unimix, bool entropies) {
  Divergence d{0.0f, 0.0f, 0.0f};
  u32 at_once = WARP / s.lanes;
  for (u32 start = 0; start < groups; start += at_once) {
    u32 i = start + lane_of_warp() / s.lanes;
    u64 at = (row * groups + i) * s.classes;
    Group<E> a = group_at<E>(p + at, s, unimix, here && i < groups), b = group_at<E>(q + at, s, unimix, here && i < groups);
    for (u32 k = a.first; k < a.end; k += s.lanes * E) {
      Some<E> v = a.at(k), w = b.at(k);
#pragma unroll
      for (u32 i = 0; i < E; i++) {
        if (k + i >= a.end) continue;
        float of_p = a.mixed(v.x[i]), log_p = a.log_mixed(v.x[i]), log_q = b.log_mixed(w.x[i]);
        d.raw += of_p * (log_p - log_q);
        if (!entropies) continue;
        float of_q = b.mixed(w.x[i]);
        if (of_p > 0.0f) d.entropy_p -= of_p * log_p;
        if (of_q > 0.0f) d.entropy_q -= of_q * log_q;
      }
    }
  }
  return Divergence{warp_sum(d.raw), warp_sum(d.entropy_p), warp_sum(d.entropy_q)};
}

// KL(p || q) of each row: in `raw` as it is, in `first` and `second` at least the free nats; and the entropies of p and
// q. `second` and the entropies may be null.
KERNEL kl(const act* p, const act* q, u32 rows, u32 groups, SHARE, float unimix, float free_nats, float* raw, float* first,
          float* second, float* entropy_p, float* entropy_q) {
  wait_for_previous();
  u64 row = global_warp();
  bool here = row < rows;
  Divergence d = vector == 4 ? divergence<4>(p, q, row, here, groups, SHARE_VALUE, unimix, entropy_p)
                             : divergence<8>(p, q, row, here, groups, SHARE_VALUE, unimix, entropy_p);
  if (!here || lane_of_warp() > 0) return;
  // Without free nats the official code takes no maximum at all. NaN stays NaN.
  float least = free_nats > 0.0f && d.raw < free_nats ? free_nats : d.raw;
  raw[row] = d.raw;
  first[row] = least;
  if (second) second[row] = least;
  if (entropy_p) entropy_p[row] = d.entropy_p, entropy_q[row] = d.entropy_q;
}
EXPORT(kl)

// Gradients of both sides: dp from `dy_p` and dq from `dy_q`, each the gradient of one output of `kl`. With l the logs
// of the mixed probabilities, dKL/dl_p = p (log p/q - KL) and dKL/dl_q = q - p; divided by p and q they are those of
// the mixed probabilities, up to constants without effect.
template <u32 E>
__device__ __forceinline__ void kl_grad_groups(const act* p, const act* q, const float* raw, const float* dy_p,
                                               const float* dy_q, u32 rows, u32 groups, const Share& s, float unimix,
                                               float free_nats, act* dp, act* dq) {
  u64 i = global_thread() / s.lanes, row = i / groups, at = i * s.classes;
  bool here = row < rows;
  Group<E> a = group_at<E>(p + at, s, unimix, here), b = group_at<E>(q + at, s, unimix, here);
  bool flows = here && !(free_nats > 0.0f && raw[row] < free_nats);
  float flow_p = dp && flows && dy_p ? dy_p[row] : 0.0f, flow_q = dq && flows && dy_q ? dy_q[row] : 0.0f;
  float mean_p = 0.0f, mean_q = 0.0f;
  for (u32 k = a.first; k < a.end; k += s.lanes * E) {
    Some<E> v = a.at(k), w = b.at(k);
#pragma unroll
    for (u32 i = 0; i < E; i++) {
      if (k + i >= a.end) continue;
      mean_p += a.soft(v.x[i]) * (a.log_mixed(v.x[i]) - b.log_mixed(w.x[i]));
      mean_q -= b.soft(w.x[i]) * a.mixed(v.x[i]) / b.mixed(w.x[i]);
    }
  }
  mean_p = s.sum(mean_p), mean_q = s.sum(mean_q);
  if (dp)
    a.map(dp + at, q + at, [&](u32, float v, float w) {
      return flow_p * (1.0f - unimix) * a.soft(v) * (a.log_mixed(v) - b.log_mixed(w) - mean_p);
    });
  // Without a mixture the quotient and the softmax gradient cancel; by themselves they may overflow.
  if (dq)
    b.map(dq + at, p + at, [&](u32, float w, float v) {
      float of_q = unimix > 0.0f ? (1.0f - unimix) * b.soft(w) * (-a.mixed(v) / b.mixed(w) - mean_q) : b.soft(w) - a.soft(v);
      return flow_q * of_q;
    });
}

// Gradients that are null are zero; outputs that are null are not wanted.
KERNEL kl_grad(const act* p, const act* q, const float* raw, const float* dy_p, const float* dy_q, u32 rows, u32 groups,
               SHARE, float unimix, float free_nats, act* dp, act* dq) {
  wait_for_previous();
  if (vector == 4) kl_grad_groups<4>(p, q, raw, dy_p, dy_q, rows, groups, SHARE_VALUE, unimix, free_nats, dp, dq);
  else kl_grad_groups<8>(p, q, raw, dy_p, dy_q, rows, groups, SHARE_VALUE, unimix, free_nats, dp, dq);
}
EXPORT(kl_grad)

template <u32 E>
__device__ __forceinline__ float2 likelihood(const act* logits, const float* chosen, u64 row, bool here, u32 groups,
                                             const Share& s, float unimix) {
  float log_sum = 0.0f, entropy = 0.0f;
  u32 at_once = WARP / s.lanes;
  for (u32 start = 0; start < groups; start += at_once) {
    u32 i = start + lane_of_warp() / s.lanes;
    bool group = here && i < groups;
    Group<E> g = group_at<E>(logits + (row * groups + i) * s.classes, s, unimix, group);
    float c = group && chosen ? chosen[row * groups + i] : -1.0f;
    g.each([&](u32 k, float logit) {
      float p = g.mixed(logit), log_p = g.log_mixed(logit);
      if (p > 0.0f) entropy -= p * log_p;
      if (c >= 0.0f && c < s.classes && (u32)c == k) log_sum += log_p;
    });
  }
  return float2{warp_sum(log_sum), warp_sum(entropy)};
}

// Log-probability of the chosen classes [rows, groups] and entropy of each row. Classes that do not exist add nothing;
// `chosen` and each output may be null.
KERNEL categorical(const act* logits, const float* chosen, u32 rows, u32 groups, SHARE, float unimix, float* logp,
                   float* entropy) {
  wait_for_previous();
  u64 row = global_warp();
  bool here = row < rows;
  float2 sums = vector == 4 ? likelihood<4>(logits, chosen, row, here, groups, SHARE_VALUE, unimix)
                            : likelihood<8>(logits, chosen, row, here, groups, SHARE_VALUE, unimix);
  if (!here || lane_of_warp() > 0) return;
  if (logp) logp[row] = sums.x;
  if (entropy) entropy[row] = sums.y;
}
EXPORT(categorical)

template <u32 E>
__device__ __forceinline__ void categorical_grad_groups(const act* logits, const float* chosen, const float* dlogp,
                                                        const float* dentropy, u32 rows, u32 groups, const Share& s,
                                                        float unimix, act* dx) {
  u64 i = global_thread() / s.lanes, at = i * s.classes;
  bool here = i < (u64)rows * groups;
  Group<E> g = group_at<E>(logits + at, s, unimix, here);
  float dent = here && dentropy ? dentropy[i / groups] : 0.0f, factor = 0.0f, mean = 0.0f, c = here ? chosen[i] : -1.0f;
  if (dlogp && c >= 0.0f && c < s.classes) {
    float logit = number(logits[at + (u32)c]), ratio = unimix > 0.0f ? g.soft(logit) / g.mixed(logit) : 1.0f;
    factor = dlogp[i / groups] * (1.0f - unimix) * ratio;
  }
  g.each([&](u32, float logit) { mean -= g.soft(logit) * dent * g.log_mixed(logit); });
  mean = s.sum(mean);
  g.map(dx + at, nullptr, [&](u32 k, float logit, float) {
    float of_entropy = (1.0f - unimix) * g.soft(logit) * (-dent * g.log_mixed(logit) - mean);
    return of_entropy - factor * g.soft(logit) + (factor != 0.0f && k == (u32)c ? factor : 0.0f);
  });
}

// The gradient of both; either of `dlogp` and `dentropy` may be null. That of logit k of the chosen class c is
// `(1 - unimix) s_k (1[k = c] - s_c) / p_c`, with s the softmax and p the mixture.
KERNEL categorical_grad(const act* logits, const float* chosen, const float* dlogp, const float* dentropy, u32 rows,
                        u32 groups, SHARE, float unimix, act* dx) {
  wait_for_previous();
  if (vector == 4) categorical_grad_groups<4>(logits, chosen, dlogp, dentropy, rows, groups, SHARE_VALUE, unimix, dx);
  else categorical_grad_groups<8>(logits, chosen, dlogp, dentropy, rows, groups, SHARE_VALUE, unimix, dx);
}
EXPORT(categorical_grad)

// One-hot vectors of indices; zeros for those outside the classes.
KERNEL one_hot(const float* index, u32 n, u32 classes, act* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float c = index[i / classes];
  y[i] = rounded<act>(c >= 0.0f && c < classes && (u32)c == i % classes ? 1.0f : 0.0f);
}
EXPORT(one_hot)
