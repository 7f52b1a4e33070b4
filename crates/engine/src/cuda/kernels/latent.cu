// Categorical distributions in groups of `classes` logits: samples, divergence, entropy, log-probability. Each is
// mixed with a share `unimix` of the uniform distribution. A thread takes a group from its first class to its last.

// A group's softmax, read from its logits class by class.
struct Group {
  const float* x;
  u32 classes;
  float max, sum, unimix;
  __device__ __forceinline__ float soft(u32 k) const { return expf(x[k] - max) / sum; }
  __device__ __forceinline__ float mixed(u32 k) const { return (1.0f - unimix) * soft(k) + unimix / classes; }
  // Finite where a probability underflows, too.
  __device__ __forceinline__ float log_mixed(u32 k) const {
    return unimix > 0.0f ? logf(mixed(k)) : x[k] - max - logf(sum);
  }
};

__device__ __forceinline__ Group group_at(const float* x, u32 classes, float unimix) {
  Group g{x, classes, x[0], 0.0f, unimix};
  for (u32 k = 1; k < classes; k++) g.max = fmaxf(g.max, x[k]);
  for (u32 k = 0; k < classes; k++) g.sum += expf(x[k] - g.max);
  return g;
}

// The class in whose share of the unit interval `u` falls.
__device__ __forceinline__ u32 quantile(const Group& g, float u) {
  float total = 0.0f, sum = 0.0f;
  for (u32 k = 0; k < g.classes; k++) total += g.mixed(k);
  for (u32 k = 0; k + 1 < g.classes; k++) {
    sum += g.mixed(k);
    if (!(sum <= u * total)) return k;  // NaN ends it at once, as on the processor
  }
  return g.classes - 1;
}

// The class of the largest log-probability plus noise, ties to the lowest index.
__device__ __forceinline__ u32 perturbed_max(const Group& g, const float* noise) {
  u32 best = 0;
  float most = 0.0f;
  for (u32 k = 0; k < g.classes; k++) {
    // Logits and log-probabilities differ by a constant; without a mixture the logits keep ties as given.
    float value = (g.unimix > 0.0f ? g.log_mixed(k) : g.x[k]) + noise[k];
    if (k == 0 || value > most) best = k, most = value;
  }
  return best;
}

// Draws a class for each group: `noise` is Gumbel for each class where `gumbel`, else uniform for each group. Writes
// one-hot vectors, or indices [groups], where not null.
KERNEL sample(const float* logits, const float* noise, u32 gumbel, u32 groups, u32 classes, float unimix, float* one_hot,
              float* index) {
  u64 i = global_thread();
  if (i >= groups) return;
  Group g = group_at(logits + i * classes, classes, unimix);
  u32 chosen = gumbel ? perturbed_max(g, noise + i * classes) : quantile(g, noise[i]);
  if (index) index[i] = chosen;
  if (!one_hot) return;
  for (u32 k = 0; k < classes; k++) one_hot[i * classes + k] = k == chosen ? 1.0f : 0.0f;
}
EXPORT(sample)

// The gradient of mixed probabilities as one of the logits.
KERNEL mixed_grad(const float* logits, const float* dy, u32 groups, u32 classes, float unimix, float* dx) {
  u64 i = global_thread();
  if (i >= groups) return;
  Group g = group_at(logits + i * classes, classes, unimix);
  dy += i * classes, dx += i * classes;
  float mean = 0.0f;
  for (u32 k = 0; k < classes; k++) mean += g.soft(k) * dy[k];
  for (u32 k = 0; k < classes; k++) dx[k] = (1.0f - unimix) * g.soft(k) * (dy[k] - mean);
}
EXPORT(mixed_grad)

// KL(p || q) of each row, a warp for each, summed over its groups; before the free nats.
KERNEL kl(const float* p, const float* q, u32 rows, u32 groups, u32 classes, float unimix, float* raw) {
  u64 row = global_warp();
  if (row >= rows) return;
  float sum = 0.0f;
  for (u32 i = lane_of_warp(); i < groups; i += WARP) {
    u64 at = (row * groups + i) * classes;
    Group a = group_at(p + at, classes, unimix), b = group_at(q + at, classes, unimix);
    for (u32 k = 0; k < classes; k++) sum += a.mixed(k) * (a.log_mixed(k) - b.log_mixed(k));
  }
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) raw[row] = sum;
}
EXPORT(kl)

// At least `least` where that is above zero: where free nats are off the official code takes no maximum at all.
KERNEL at_least(const float* x, float least, u32 n, float* y) {
  u64 i = global_thread();
  if (i < n) y[i] = least > 0.0f ? fmaxf(x[i], least) : x[i];
}
EXPORT(at_least)

// Gradients of both sides, where not null. With l the logs of the mixed probabilities, dKL/dl_p = p (log p/q - KL) and
// dKL/dl_q = q - p; divided by p and q they are those of the mixed probabilities, up to constants without effect.
KERNEL kl_grad(const float* p, const float* q, const float* raw, const float* dy, u32 rows, u32 groups, u32 classes,
               float unimix, float free_nats, float* dp, float* dq) {
  u64 i = global_thread();
  if (i >= (u64)rows * groups) return;
  u64 row = i / groups, at = i * classes;
  float flow = free_nats > 0.0f && raw[row] < free_nats ? 0.0f : dy[row];
  Group a = group_at(p + at, classes, unimix), b = group_at(q + at, classes, unimix);
  float mean_p = 0.0f, mean_q = 0.0f;
  for (u32 k = 0; k < classes; k++) {
    mean_p += a.soft(k) * (a.log_mixed(k) - b.log_mixed(k));
    mean_q -= b.soft(k) * a.mixed(k) / b.mixed(k);
  }
  for (u32 k = 0; k < classes; k++) {
    if (dp) dp[at + k] = flow * (1.0f - unimix) * a.soft(k) * (a.log_mixed(k) - b.log_mixed(k) - mean_p);
    // Without a mixture the quotient and the softmax gradient cancel; by themselves they may overflow.
    float of_q = unimix > 0.0f ? (1.0f - unimix) * b.soft(k) * (-a.mixed(k) / b.mixed(k) - mean_q) : b.soft(k) - a.soft(k);
    if (dq) dq[at + k] = flow * of_q;
  }
}
EXPORT(kl_grad)

// Log-probability of the chosen classes [rows, groups] and entropy of each row, a warp for each, summed over its
// groups. Classes that do not exist add nothing; `chosen` and each output may be null.
KERNEL categorical(const float* logits, const float* chosen, u32 rows, u32 groups, u32 classes, float unimix, float* logp,
                   float* entropy) {
  u64 row = global_warp();
  if (row >= rows) return;
  float log_sum = 0.0f, entropies = 0.0f;
  for (u32 i = lane_of_warp(); i < groups; i += WARP) {
    Group g = group_at(logits + (row * groups + i) * classes, classes, unimix);
    float c = chosen ? chosen[row * groups + i] : -1.0f;
    if (c >= 0.0f && c < classes) log_sum += g.log_mixed((u32)c);
    for (u32 k = 0; k < classes; k++) {
      float p = g.mixed(k);
      if (p > 0.0f) entropies -= p * g.log_mixed(k);
    }
  }
  log_sum = warp_sum(log_sum);
  entropies = warp_sum(entropies);
  if (lane_of_warp() > 0) return;
  if (logp) logp[row] = log_sum;
  if (entropy) entropy[row] = entropies;
}
EXPORT(categorical)

// The gradient of both; either of `dlogp` and `dentropy` may be null. That of logit k of the chosen class c is
// `(1 - unimix) s_k (1[k = c] - s_c) / p_c`, with s the softmax and p the mixture.
KERNEL categorical_grad(const float* logits, const float* chosen, const float* dlogp, const float* dentropy, u32 rows,
                        u32 groups, u32 classes, float unimix, float* dx) {
  u64 i = global_thread();
  if (i >= (u64)rows * groups) return;
  Group g = group_at(logits + i * classes, classes, unimix);
  dx += i * classes;
  float dent = dentropy ? dentropy[i / groups] : 0.0f, factor = 0.0f, mean = 0.0f, c = chosen[i];
  if (dlogp && c >= 0.0f && c < classes) {
    float ratio = unimix > 0.0f ? g.soft((u32)c) / g.mixed((u32)c) : 1.0f;
    factor = dlogp[i / groups] * (1.0f - unimix) * ratio;
  }
  for (u32 k = 0; k < classes; k++) mean -= g.soft(k) * dent * g.log_mixed(k);
  for (u32 k = 0; k < classes; k++) {
    float of_entropy = (1.0f - unimix) * g.soft(k) * (-dent * g.log_mixed(k) - mean);
    dx[k] = of_entropy - factor * g.soft(k) + (factor != 0.0f && k == (u32)c ? factor : 0.0f);
  }
}
EXPORT(categorical_grad)

// One-hot vectors of indices; zeros for those outside the classes.
KERNEL one_hot(const float* index, u32 n, u32 classes, float* y) {
  u64 i = global_thread();
  if (i >= n) return;
  float c = index[i / classes];
  y[i] = c >= 0.0f && c < classes && (u32)c == i % classes ? 1.0f : 0.0f;
}
EXPORT(one_hot)
