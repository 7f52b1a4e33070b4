// What heads predict and how they are trained: two-hot regression, normal distributions, squared errors, coin flips.

// ---- Two-hot: logits over mirrored bins (ops/twohot.rs); a warp for each row.

struct TwoHot { u32 low, high; float to_low, to_high; };

// The two bins around a target and their weights; beyond the ends all weight is on the last bin.
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

// Largest logit and the sum of exponentials of a row, the same in all threads of the warp.
__device__ __forceinline__ float2 softmax_stats(const float* x, u32 n) {
  float most = x[0], sum = 0.0f;
  for (u32 j = lane_of_warp(); j < n; j += WARP) most = fmaxf(most, x[j]);
  most = warp_max(most);
  for (u32 j = lane_of_warp(); j < n; j += WARP) sum += expf(x[j] - most);
  return float2{most, warp_sum(sum)};
}

// Cross entropy with one or two targets, each with a coefficient; the second may be null.
KERNEL twohot_loss(const float* logits, const float* bins, u32 rows, u32 n, const float* target0, float c0,
                   const float* target1, float c1, float* loss) {
  u64 row = global_warp();
  if (row >= rows) return;
  const float* x = logits + row * n;
  float2 s = softmax_stats(x, n);
  if (lane_of_warp() > 0) return;
  float log_sum = s.x + logf(s.y);
  TwoHot t = two_hot(bins, n, target0[row]);
  float sum = c0 * (t.to_low * (log_sum - x[t.low]) + t.to_high * (log_sum - x[t.high]));
  if (target1) {
    t = two_hot(bins, n, target1[row]);
    sum += c1 * (t.to_low * (log_sum - x[t.low]) + t.to_high * (log_sum - x[t.high]));
  }
  loss[row] = sum;
}
EXPORT(twohot_loss)

KERNEL twohot_grad(const float* logits, const float* bins, const float* dy, u32 rows, u32 n, const float* target0, float c0,
                   const float* target1, float c1, float* dx) {
  u64 row = global_warp();
  if (row >= rows) return;
  const float* x = logits + row * n;
  float2 s = softmax_stats(x, n);
  TwoHot a = two_hot(bins, n, target0[row]), b = target1 ? two_hot(bins, n, target1[row]) : TwoHot{0, 0, 0.0f, 0.0f};
  float total = c0 + (target1 ? c1 : 0.0f);
  for (u32 j = lane_of_warp(); j < n; j += WARP) {
    float g = total * expf(x[j] - s.x) / s.y;
    if (j == a.low) g -= c0 * a.to_low;
    if (j == a.high) g -= c0 * a.to_high;
    if (j == b.low && target1) g -= c1 * b.to_low;
    if (j == b.high && target1) g -= c1 * b.to_high;
    dx[row * n + j] = dy[row] * g;
  }
}
EXPORT(twohot_grad)

// The mean of the bins, in mirrored pairs: a distribution as symmetric as they are gives exactly zero.
KERNEL twohot_pred(const float* logits, const float* bins, u32 rows, u32 n, float* mean) {
  u64 row = global_warp();
  if (row >= rows) return;
  const float* x = logits + row * n;
  float2 s = softmax_stats(x, n);
  float sum = 0.0f;
  for (u32 i = lane_of_warp(); i < n / 2; i += WARP) sum += (expf(x[n - 1 - i] - s.x) - expf(x[i] - s.x)) * bins[n - 1 - i];
  sum = warp_sum(sum);
  if (n % 2 == 1) sum += expf(x[n / 2] - s.x) * bins[n / 2];
  if (lane_of_warp() == 0) mean[row] = sum / s.y;
}
EXPORT(twohot_pred)

// ---- Normal distributions of continuous actions (ops/normal.rs); `bounded`: tanh(mean), (max - min) sigmoid(std + 2) + min.

__device__ __forceinline__ float normal_mean(float x, u32 bounded) { return bounded ? tanhf(x) : x; }
__device__ __forceinline__ float normal_std(float x, u32 bounded, float low, float high) {
  return bounded ? (high - low) * sigmoid(x + 2.0f) + low : expf(x);
}

KERNEL normal_params(const float* mean, const float* std, u32 n, u32 bounded, float low, float high, float* m, float* s) {
  u64 i = global_thread();
  if (i >= n) return;
  m[i] = normal_mean(mean[i], bounded);
  s[i] = normal_std(std[i], bounded, low, high);
}
EXPORT(normal_params)

#define HALF_LOG_TAU 0.9189385332f

// Log-probability and entropy of each row, a thread for each.
KERNEL normal(const float* mean, const float* std, const float* action, u32 rows, u32 width, u32 bounded, float low, float high,
              float* logp, float* entropy) {
  u64 row = global_thread();
  if (row >= rows) return;
  float sum = 0.0f, entropies = 0.0f;
  for (u64 i = row * width; i < (row + 1) * width; i++) {
    float s = normal_std(std[i], bounded, low, high), z = (action[i] - normal_mean(mean[i], bounded)) / s;
    sum -= 0.5f * z * z + logf(s) + HALF_LOG_TAU;
    entropies += logf(s) + HALF_LOG_TAU + 0.5f;
  }
  logp[row] = sum;
  entropy[row] = entropies;
}
EXPORT(normal)

// Either of `dlogp` and `dentropy` may be null.
KERNEL normal_grad(const float* mean, const float* std, const float* action, const float* dlogp, const float* dentropy, u32 n,
                   u32 width, u32 bounded, float low, float high, float* dmean, float* dstd) {
  u64 i = global_thread();
  if (i >= n) return;
  float m = normal_mean(mean[i], bounded), s = normal_std(std[i], bounded, low, high), z = (action[i] - m) / s;
  float dl = dlogp ? dlogp[i / width] : 0.0f, de = dentropy ? dentropy[i / width] : 0.0f;
  float dm = dl * z / s, ds = (dl * (z * z - 1.0f) + de) / s, q = sigmoid(std[i] + 2.0f);
  dmean[i] = bounded ? dm * (1.0f - m * m) : dm;
  dstd[i] = bounded ? ds * (high - low) * q * (1.0f - q) : ds * s;
}
EXPORT(normal_grad)

// ---- Regression (ops/regression.rs); a warp for each row.

enum Squash : u32 { IDENTITY, SYMLOG, HUBER };

__device__ __forceinline__ float difference(float x, float target, u32 squash) {
  return x - (squash == SYMLOG ? copysignf(log1pf(fabsf(target)), target) : target);
}

KERNEL squared_error(const float* x, const float* target, u32 rows, u32 n, u32 squash, float* loss) {
  u64 row = global_warp();
  if (row >= rows) return;
  float sum = 0.0f;
  for (u32 j = lane_of_warp(); j < n; j += WARP) {
    float d = difference(x[row * n + j], target[row * n + j], squash);
    sum += squash == HUBER ? sqrtf(d * d + 1.0f) - 1.0f : d * d;
  }
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) loss[row] = sum;
}
EXPORT(squared_error)

KERNEL squared_error_grad(const float* x, const float* target, const float* dy, u32 rows, u32 n, u32 squash, float* dx) {
  u64 i = global_thread();
  if (i >= (u64)rows * n) return;
  float d = difference(x[i], target[i], squash);
  dx[i] = dy[i / n] * (squash == HUBER ? d / sqrtf(d * d + 1.0f) : 2.0f * d);
}
EXPORT(squared_error_grad)

// ---- Bernoulli logits (ops/categorical.rs).

// -t log s(x) - (1 - t) log s(-x) = softplus(x) - t x
KERNEL binary_loss(const float* x, const float* target, u32 rows, u32 n, float* loss) {
  u64 row = global_warp();
  if (row >= rows) return;
  float sum = 0.0f;
  for (u32 j = lane_of_warp(); j < n; j += WARP) {
    float v = x[row * n + j];
    sum += fmaxf(v, 0.0f) + log1pf(expf(-fabsf(v))) - target[row * n + j] * v;
  }
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) loss[row] = sum;
}
EXPORT(binary_loss)

KERNEL binary_grad(const float* x, const float* target, const float* dy, u32 rows, u32 n, float* dx) {
  u64 i = global_thread();
  if (i < (u64)rows * n) dx[i] = dy[i / n] * (sigmoid(x[i]) - target[i]);
}
EXPORT(binary_grad)

KERNEL binary_prob(const float* x, u32 n, float* p) {
  u64 i = global_thread();
  if (i < n) p[i] = sigmoid(x[i]);
}
EXPORT(binary_prob)
