// Targets and statistics, through which no gradient flows: lambda returns, percentiles, running statistics, summaries.

// y = a x + b
KERNEL scale_shift(const float* x, float a, float b, u32 n, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < n) y[i] = a * x[i] + b;
}
EXPORT(scale_shift)

KERNEL subtract(const float* a, const float* b, u32 n, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < n) y[i] = a[i] - b[i];
}
EXPORT(subtract)

// (x - offset) / scale with stats = [offset, scale], or `x / scale` where not `centred`.
KERNEL normalize(const float* x, const float* stats, u32 centred, u32 n, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < n) y[i] = (x[i] - (centred ? stats[0] : 0.0f)) / stats[1];
}
EXPORT(normalize)

// x scale + offset
KERNEL denormalize(const float* x, const float* stats, u32 n, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < n) y[i] = x[i] * stats[1] + stats[0];
}
EXPORT(denormalize)

// A thread for each sequence of [n, t] -> [n, t - 1], from its end (ops/returns.rs).
KERNEL lambda_return(const float* last, const float* term, const float* rew, const float* boot, u32 n, u32 t, float disc,
                     float lam, float* out) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float next = boot[i * t + t - 1];
  for (u32 j = t - 1; j > 0; j--) {
    u64 at = i * t + j;
    float live = (1.0f - term[at]) * disc, cont = (1.0f - last[at]) * lam;
    next = rew[at] + (1.0f - cont) * live * boot[at] + live * cont * next;
    out[i * (t - 1) + j - 1] = next;
  }
}
EXPORT(lambda_return)

// cumprod(disc con) / disc along each row of [n, t].
KERNEL discount_weights(const float* con, u32 n, u32 t, float disc, float* out) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float product = 1.0f;
  for (u64 at = i * t; at < (i + 1) * t; at++) {
    product *= disc * con[at];
    out[at] = product / disc;
  }
}
EXPORT(discount_weights)

// Both for imagined trajectories, which only end by their continue probability and have no `last` steps.
KERNEL imagined_returns(const float* rew, const float* con, const float* boot, u32 n, u32 t, float disc, float lam, float* ret,
                        float* weight) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float next = boot[i * t + t - 1], product = 1.0f;
  for (u32 j = t - 1; j > 0; j--) {
    u64 at = i * t + j;
    float live = (1.0f - (1.0f - con[at])) * disc;  // rounded as if by the probability of an end
    next = rew[at] + (1.0f - lam) * live * boot[at] + live * lam * next;
    ret[i * (t - 1) + j - 1] = next;
  }
  for (u64 at = i * t; at < (i + 1) * t; at++) {
    product *= disc * con[at];
    weight[at] = product / disc;
  }
}
EXPORT(imagined_returns)

// (ret - val) / scale of stats = [offset, scale], for ret [n, t] and val [n, t + 1].
KERNEL advantage(const float* ret, const float* val, const float* stats, u32 n, u32 t, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < (u64)n * t) y[i] = (ret[i] - val[i / t * (t + 1) + i % t]) / stats[1];
}
EXPORT(advantage)

#define KEYS 120u

// For each action key the log-probabilities and entropies, or places for their gradients.
struct Likelihoods {
  const float *logp[KEYS], *entropy[KEYS];
  float *dlogp[KEYS], *dentropy[KEYS];
};

// The actor's loss, -weight (adv logp + scale entropy), summed over keys.
KERNEL actor_loss(const __grid_constant__ Likelihoods t, u32 keys, const float* adv, const float* weight, float scale, u32 n,
                  float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float sum = 0.0f, reinforce = -weight[i] * adv[i], explore = -scale * weight[i];
  for (u32 k = 0; k < keys; k++) sum += reinforce * t.logp[k][i] + explore * t.entropy[k][i];
  y[i] = sum;
}
EXPORT(actor_loss)

KERNEL actor_loss_grad(const __grid_constant__ Likelihoods t, u32 keys, const float* adv, const float* weight, float scale,
                       u32 n, const float* dy) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float of_logp = -weight[i] * adv[i] * dy[i], of_entropy = -scale * weight[i] * dy[i];
  for (u32 k = 0; k < keys; k++) t.dlogp[k][i] = of_logp, t.dentropy[k][i] = of_entropy;
}
EXPORT(actor_loss_grad)

// A number's place in the total order: NaN beyond the infinities, as on the processor.
__device__ __forceinline__ u32 order(float x) {
  u32 bits = __float_as_uint(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float unordered(u32 place) {
  return __uint_as_float(place >> 31 ? place & 0x7fffffffu : ~place);
}

// ---- By one block of 1024 threads, each with every 1024th number; the first 16 of them stay in its registers.

// Sums of counts over all threads of a block, the same in all of them. Calls alternate between two `sums`, so that one
// barrier is enough.
__device__ __forceinline__ uint2 counted(uint2 mine, uint2 (&sums)[WARP]) {
  mine.x = __reduce_add_sync(ALL, mine.x), mine.y = __reduce_add_sync(ALL, mine.y);
  if (lane_of_warp() == 0) sums[threadIdx.x / WARP] = mine;
  __syncthreads();
  uint2 all = sums[lane_of_warp()];
  return uint2{__reduce_add_sync(ALL, all.x), __reduce_add_sync(ALL, all.y)};
}

struct Keys {
  const float* x;
  u32 n, held[16];

  template <class F> __device__ __forceinline__ void each(F f) const {
#pragma unroll
    for (u32 i = 0; i < 16; i++)
      if (threadIdx.x + i * 1024 < n) f(held[i]);
    for (u32 i = threadIdx.x + 16 * 1024; i < n; i += 1024) f(order(x[i]));
  }
};

// The position of a percentile: `share` of the way from the number of rank `low` to the next.
struct Rank { u32 low; float share; };

// Two percentiles of x [n], in all threads. Finds, bit by bit, the largest key with no more than `low` numbers below
// it: the key of rank `low`.
__device__ __forceinline__ float2 percentiles(const float* x, u32 n, Rank a, Rank b) {
  __shared__ uint2 sums[2][WARP];
  Keys keys{x, n, {}};
#pragma unroll
  for (u32 i = 0; i < 16; i++)
    if (threadIdx.x + i * 1024 < n) keys.held[i] = order(x[threadIdx.x + i * 1024]);
  u32 low_a = 0, low_b = 0;
  for (u32 i = 0; i < 32; i++) {
    u32 try_a = low_a | 0x80000000u >> i, try_b = low_b | 0x80000000u >> i;
    uint2 below{0, 0};
    keys.each([&](u32 key) { below.x += key < try_a, below.y += key < try_b; });
    below = counted(below, sums[i % 2]);
    if (below.x <= a.low) low_a = try_a;
    if (below.y <= b.low) low_b = try_b;
  }
  // The next in rank: the same number again, or the least above.
  uint2 not_above{0, 0};
  u32 next_a = 0xffffffffu, next_b = 0xffffffffu;
  keys.each([&](u32 key) {
    not_above.x += key <= low_a, not_above.y += key <= low_b;
    if (key > low_a) next_a = min(next_a, key);
    if (key > low_b) next_b = min(next_b, key);
  });
  not_above = counted(not_above, sums[0]);
  next_a = min_among(next_a, WARP), next_b = min_among(next_b, WARP);
  if (lane_of_warp() == 0) sums[1][threadIdx.x / WARP] = uint2{next_a, next_b};
  __syncthreads();
  for (u32 w = 0; w < WARP; w++) next_a = min(next_a, sums[1][w].x), next_b = min(next_b, sums[1][w].y);
  if (not_above.x > a.low + 1) next_a = low_a;
  if (not_above.y > b.low + 1) next_b = low_b;
  // In float64 as on the processor; just the lower one if `share` is 0.
  auto between = [](u32 low, u32 next, float share) {
    float l = unordered(low), h = unordered(next);
    return share == 0.0f ? l : (float)((double)l * (1.0 - (double)share) + (double)h * (double)share);
  };
  return float2{between(low_a, next_a, a.share), between(low_b, next_b, b.share)};
}

KERNEL_1024 percentile(const float* x, u32 n, u32 low, float share, float* y) {
  wait_for_previous();
  float2 both = percentiles(x, n, Rank{low, share}, Rank{low, share});
  if (threadIdx.x == 0) y[0] = both.x;
}
EXPORT(percentile)

// The sums over all threads of a block of 1024, in thread 0.
__device__ __forceinline__ double block_total(double x) {
  __shared__ double sums[WARP];
  x = warp_sum_double(x);
  __syncthreads();
  if (lane_of_warp() == 0) sums[threadIdx.x / WARP] = x;
  __syncthreads();
  if (threadIdx.x > 0) return 0.0;
  for (u32 w = 1; w < WARP; w++) x += sums[w];
  return x;
}

#define SUMMARIES 64u

struct Summaries {
  const float *x[SUMMARIES], *stats[SUMMARIES];  // [offset, scale] by which numbers are normalised first, or null
  u32 n[SUMMARIES];
};

// For each tensor y [7] = mean, standard deviation, mean magnitude, minimum, maximum, share of magnitudes of at least one,
// mean square (ops/summary.rs); a block for each.
KERNEL_1024 summaries(const __grid_constant__ Summaries t, float* y) {
  wait_for_previous();
  __shared__ float lows[WARP], highs[WARP];
  __shared__ double middle;
  const float *x = t.x[blockIdx.x], *stats = t.stats[blockIdx.x];
  u32 n = t.n[blockIdx.x];
  float offset = stats ? stats[0] : 0.0f, scale = stats ? stats[1] : 1.0f;
  double sum = 0, magnitude = 0, large = 0, squares = 0, spread = 0;
  float low = __uint_as_float(0x7f800000u), high = -low;  // infinite
  for (u32 i = threadIdx.x; i < n; i += 1024) {
    float v = (x[i] - offset) / scale;
    sum += v;
    magnitude += fabsf(v);
    large += fabsf(v) >= 1.0f ? 1.0 : 0.0;
    squares += (double)v * v;
    low = fminf(low, v);
    high = fmaxf(high, v);
  }
  sum = block_total(sum), magnitude = block_total(magnitude), large = block_total(large), squares = block_total(squares);
  low = -warp_max(-low), high = warp_max(high);
  if (lane_of_warp() == 0) lows[threadIdx.x / WARP] = low, highs[threadIdx.x / WARP] = high;
  if (threadIdx.x == 0) middle = sum / n;
  __syncthreads();
  for (u32 i = threadIdx.x; i < n; i += 1024) {
    double d = (x[i] - offset) / scale - middle;
    spread += d * d;
  }
  spread = block_total(spread);
  if (threadIdx.x > 0) return;
  for (u32 w = 1; w < WARP; w++) low = fminf(low, lows[w]), high = fmaxf(high, highs[w]);
  y += 7 * blockIdx.x;
  y[0] = (float)middle;
  y[1] = (float)sqrt(spread / n);
  y[2] = (float)(magnitude / n);
  y[3] = low;
  y[4] = high;
  y[5] = (float)(large / n);
  y[6] = (float)(squares / n);
}
EXPORT(summaries)

// Offset and scale [2] from running percentiles or `moments`, the scale at least `limit`; `debias` divides both by the
// third number of the state, at least `rate`.
__device__ __forceinline__ void offset_and_scale(const float* state, u32 moments, u32 debias, float rate, float limit,
                                                 float* stats) {
  float correct = debias ? 1.0f / fmaxf(state[2], rate) : 1.0f, a = state[0] * correct, b = state[1] * correct;
  stats[0] = a;
  stats[1] = fmaxf(moments ? sqrtf(fmaxf(b - a * a, 0.0f)) : b - a, limit);
}

// moved [3] = (1 - rate) state [3] + rate fresh, where fresh is the two percentiles, or mean and mean square, of x [n],
// and 1; then offset and scale from it.
KERNEL_1024 move_running(const float* state, const float* x, u32 n, u32 moments, u32 low_a, float share_a, u32 low_b,
                         float share_b, u32 debias, float rate, float limit, float* moved, float* stats) {
  wait_for_previous();
  float2 fresh;
  if (moments) {
    double sum = 0, squares = 0;
    for (u32 i = threadIdx.x; i < n; i += 1024) sum += x[i], squares += (double)x[i] * x[i];
    sum = block_total(sum), squares = block_total(squares);
    fresh = float2{(float)(sum / n), (float)(squares / n)};
  } else {
    fresh = percentiles(x, n, Rank{low_a, share_a}, Rank{low_b, share_b});
  }
  if (threadIdx.x > 0) return;
  moved[0] = (1.0f - rate) * state[0] + rate * fresh.x;
  moved[1] = (1.0f - rate) * state[1] + rate * fresh.y;
  moved[2] = (1.0f - rate) * state[2] + rate;
  offset_and_scale(moved, moments, debias, rate, limit, stats);
}
EXPORT(move_running)

KERNEL running_stats(const float* state, u32 moments, u32 debias, float rate, float limit, float* stats) {
  wait_for_previous();
  offset_and_scale(state, moments, debias, rate, limit, stats);
}
EXPORT(running_stats)
