// Predictions and losses of heads: two-hot regression, normal distributions, squared errors, Bernoulli logits.

// ---- Two-hot: logits over mirrored bins (ops/twohot.rs); a warp for each row, which it reads once.

struct TwoHot { u32 low, high; float to_low, to_high; };

// The two bins around a target and their weights; beyond the ends all weight is on the outermost bin.
__device__ __forceinline__ TwoHot two_hot(const float* bins, u32 n, float target) {
  if (target != target) return TwoHot{0, 0, target, target};  // a bad reward must not pass for a very small one
  u32 first = 0, last = n;
  while (first < last) {
    u32 middle = (first + last) / 2;
    if (bins[middle] <= target) first = middle + 1;
    else last = middle;
  }
  u32 low = first > 0 ? first - 1 : 0, high = min(first, n - 1);
  if (low == high) return TwoHot{low, high, 0.5f, 0.5f};
  float below = fabsf(bins[low] - target), above = fabsf(bins[high] - target);
  return TwoHot{low, high, above / (below + above), below / (below + above)};
}

// A row of logits, of which each thread of a warp has every 32nd; the first eight of them stay in its registers.
struct Logits {
  const act* x;
  u32 n;
  float held[8], most, total;

  // Calls f(j, logit) for this thread's logits.
  template <class F> __device__ __forceinline__ void each(F f) const {
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
      u32 j = lane_of_warp() + i * WARP;
      if (j < n) f(j, held[i]);
    }
    for (u32 j = lane_of_warp() + 8 * WARP; j < n; j += WARP) f(j, number(x[j]));
  }
  __device__ __forceinline__ float at(u32 j) const { return number(x[j]); }
  __device__ __forceinline__ float log_sum() const { return most + logf(total); }
};

// An empty row if not `here`. All threads of a warp must call this together.
__device__ __forceinline__ Logits logits_at(const act* x, u32 n, bool here) {
  Logits l{x, here ? n : 0, {}, -3.4028234e38f, 0.0f};
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
    u32 j = lane_of_warp() + i * WARP;
    l.held[i] = j < l.n ? number(x[j]) : 0.0f;
  }
  l.each([&](u32, float v) { l.most = fmaxf(l.most, v); });
  l.most = warp_max(l.most);
  l.each([&](u32, float v) { l.total += fast_exp(v - l.most); });
  l.total = warp_sum(l.total);
  return l;
}

// Cross entropy with one or two targets, each with a coefficient, and the expected value of the bins; targets and
// outputs that are not wanted are null. The mean is summed over mirrored pairs of bins, so that a symmetric
// distribution gives exactly zero.
KERNEL twohot(const act* logits, const float* bins, u32 rows, u32 n, const float* target0, float c0, const float* target1,
              float c1, float* loss, float* mean) {
  wait_for_previous();
  u64 row = global_warp();
  bool here = row < rows;
  Logits l = logits_at(logits + row * n, n, here);
  if (mean) {
    float sum = 0.0f;
    // Each pair is added by the thread that has its lower bin.
    l.each([&](u32 i, float v) {
      if (i < n / 2) sum += (fast_exp(l.at(n - 1 - i) - l.most) - fast_exp(v - l.most)) * bins[n - 1 - i];
    });
    sum = warp_sum(sum);
    if (here && lane_of_warp() == 0) {
      if (n % 2 == 1) sum += fast_exp(l.at(n / 2) - l.most) * bins[n / 2];
      mean[row] = sum / l.total;
    }
  }
  if (!loss || !here || lane_of_warp() > 0) return;
  float log_sum = l.log_sum();
  TwoHot t = two_hot(bins, n, target0[row]);
  float sum = c0 * (t.to_low * (log_sum - l.at(t.low)) + t.to_high * (log_sum - l.at(t.high)));
  if (target1) {
    t = two_hot(bins, n, target1[row]);
    sum += c1 * (t.to_low * (log_sum - l.at(t.low)) + t.to_high * (log_sum - l.at(t.high)));
  }
  loss[row] = sum;
}
EXPORT(twohot)

KERNEL twohot_grad(const act* logits, const float* bins, const float* dy, u32 rows, u32 n, const float* target0, float c0,
                   const float* target1, float c1, act* dx) {
  wait_for_previous();
  u64 row = global_warp();
  bool here = row < rows;
  Logits l = logits_at(logits + row * n, n, here);
  if (!here) return;
  TwoHot a = two_hot(bins, n, target0[row]), b = target1 ? two_hot(bins, n, target1[row]) : TwoHot{0, 0, 0.0f, 0.0f};
  float total = c0 + (target1 ? c1 : 0.0f), flow = dy[row];
  l.each([&](u32 j, float v) {
    float g = total * fast_divide(fast_exp(v - l.most), l.total);
    if (j == a.low) g -= c0 * a.to_low;
    if (j == a.high) g -= c0 * a.to_high;
    if (j == b.low && target1) g -= c1 * b.to_low;
    if (j == b.high && target1) g -= c1 * b.to_high;
    dx[row * n + j] = rounded<act>(flow * g);
  });
}
EXPORT(twohot_grad)

// ---- Normal distributions of continuous actions (ops/normal.rs); `bounded`: tanh(mean), (max - min) sigmoid(std + 2) + min.

__device__ __forceinline__ float normal_mean(float x, u32 bounded) { return bounded ? tanhf(x) : x; }
__device__ __forceinline__ float normal_std(float x, u32 bounded, float low, float high) {
  return bounded ? (high - low) * sigmoid(x + 2.0f) + low : expf(x);
}

KERNEL normal_params(const act* mean, const act* std, u32 n, u32 bounded, float low, float high, float* m, float* s) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  m[i] = normal_mean(number(mean[i]), bounded);
  s[i] = normal_std(number(std[i]), bounded, low, high);
}
EXPORT(normal_params)

// mean + std noise, with given noise or, where that is null, with numbers drawn here.
KERNEL normal_sample(const act* mean, const act* std, u32 n, u32 bounded, float low, float high, const float* noise, DRAWS,
                     float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float z = noise ? noise[i] : DRAWS_VALUE.normal(i);
  y[i] = normal_mean(number(mean[i]), bounded) + normal_std(number(std[i]), bounded, low, high) * z;
}
EXPORT(normal_sample)

#define HALF_LOG_TAU 0.9189385332f

// Log-probability and entropy of each row, a thread for each.
KERNEL normal(const act* mean, const act* std, const float* action, u32 rows, u32 width, u32 bounded, float low, float high,
              float* logp, float* entropy) {
  wait_for_previous();
  u64 row = global_thread();
  if (row >= rows) return;
  float sum = 0.0f, entropies = 0.0f;
  for (u64 i = row * width; i < (row + 1) * width; i++) {
    float s = normal_std(number(std[i]), bounded, low, high), z = (action[i] - normal_mean(number(mean[i]), bounded)) / s;
    sum -= 0.5f * z * z + logf(s) + HALF_LOG_TAU;
    entropies += logf(s) + HALF_LOG_TAU + 0.5f;
  }
  logp[row] = sum;
  entropy[row] = entropies;
}
EXPORT(normal)

// Either of `dlogp` and `dentropy` may be null.
KERNEL normal_grad(const act* mean, const act* std, const float* action, const float* dlogp, const float* dentropy, u32 n,
                   u32 width, u32 bounded, float low, float high, act* dmean, act* dstd) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float raw = number(std[i]), m = normal_mean(number(mean[i]), bounded), s = normal_std(raw, bounded, low, high);
  float z = (action[i] - m) / s;
  float dl = dlogp ? dlogp[i / width] : 0.0f, de = dentropy ? dentropy[i / width] : 0.0f;
  float dm = dl * z / s, ds = (dl * (z * z - 1.0f) + de) / s, q = sigmoid(raw + 2.0f);
  dmean[i] = rounded<act>(bounded ? dm * (1.0f - m * m) : dm);
  dstd[i] = rounded<act>(bounded ? ds * (high - low) * q * (1.0f - q) : ds * s);
}
EXPORT(normal_grad)

// ---- Regression (ops/regression.rs); a warp for each row.

enum Squash : u32 { IDENTITY, SYMLOG, HUBER };

__device__ __forceinline__ float difference(float x, float target, u32 squash) {
  return x - (squash == SYMLOG ? copysignf(log1pf(fabsf(target)), target) : target);
}

KERNEL squared_error(const act* x, const float* target, u32 rows, u32 n, u32 squash, float* loss) {
  wait_for_previous();
  u64 row = global_warp();
  if (row >= rows) return;
  float sum = 0.0f;
  for (u32 j = lane_of_warp(); j < n; j += WARP) {
    float d = difference(number(x[row * n + j]), target[row * n + j], squash);
    sum += squash == HUBER ? sqrtf(d * d + 1.0f) - 1.0f : d * d;
  }
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) loss[row] = sum;
}
EXPORT(squared_error)

KERNEL squared_error_grad(const act* x, const float* target, const float* dy, u32 rows, u32 n, u32 squash, act* dx) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= (u64)rows * n) return;
  float d = difference(number(x[i]), target[i], squash);
  dx[i] = rounded<act>(dy[i / n] * (squash == HUBER ? d / sqrtf(d * d + 1.0f) : 2.0f * d));
}
EXPORT(squared_error_grad)

// ---- Bernoulli logits (ops/categorical.rs).

// -t log s(x) - (1 - t) log s(-x) = max(x, 0) - t x + softplus(-|x|), accurate also where t is 1 and x large.
KERNEL binary_loss(const act* x, const float* target, u32 rows, u32 n, float* loss) {
  wait_for_previous();
  u64 row = global_warp();
  if (row >= rows) return;
  float sum = 0.0f;
  for (u32 j = lane_of_warp(); j < n; j += WARP) {
    float v = number(x[row * n + j]);
    sum += (fmaxf(v, 0.0f) - target[row * n + j] * v) + log1pf(expf(-fabsf(v)));
  }
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) loss[row] = sum;
}
EXPORT(binary_loss)

KERNEL binary_grad(const act* x, const float* target, const float* dy, u32 rows, u32 n, act* dx) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= (u64)rows * n) return;
  float v = number(x[i]), t = target[i];
  dx[i] = rounded<act>(dy[i / n] * ((1.0f - t) * sigmoid(v) - t * sigmoid(-v)));  // One is 0 if t is 0 or 1.
}
EXPORT(binary_grad)

KERNEL binary_prob(const act* x, u32 n, float* p) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < n) p[i] = sigmoid(number(x[i]));
}
EXPORT(binary_prob)
