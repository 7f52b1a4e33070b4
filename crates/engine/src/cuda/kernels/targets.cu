// Targets and statistics, through which no gradient flows: lambda returns, percentiles, running statistics, summaries.

// y = a x + b
KERNEL scale_shift(const float* x, float a, float b, u32 n, float* y) {
  u64 i = global_thread();
  if (i < n) y[i] = a * x[i] + b;
}
EXPORT(scale_shift)

KERNEL subtract(const float* a, const float* b, u32 n, float* y) {
  u64 i = global_thread();
  if (i < n) y[i] = a[i] - b[i];
}
EXPORT(subtract)

// (x - offset) / scale with stats = [offset, scale], or `x / scale` where not `centred`.
KERNEL normalize(const float* x, const float* stats, u32 centred, u32 n, float* y) {
  u64 i = global_thread();
  if (i < n) y[i] = (x[i] - (centred ? stats[0] : 0.0f)) / stats[1];
}
EXPORT(normalize)

// x scale + offset
KERNEL denormalize(const float* x, const float* stats, u32 n, float* y) {
  u64 i = global_thread();
  if (i < n) y[i] = x[i] * stats[1] + stats[0];
}
EXPORT(denormalize)

// A thread for each sequence of [n, t] -> [n, t - 1], from its end (ops/returns.rs).
KERNEL lambda_return(const float* last, const float* term, const float* rew, const float* boot, u32 n, u32 t, float disc,
                     float lam, float* out) {
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
  u64 i = global_thread();
  if (i >= n) return;
  float product = 1.0f;
  for (u64 at = i * t; at < (i + 1) * t; at++) {
    product *= disc * con[at];
    out[at] = product / disc;
  }
}
EXPORT(discount_weights)

// A number's place in the total order: NaN beyond the infinities, as on the processor.
__device__ __forceinline__ u32 order(float x) {
  u32 bits = __float_as_uint(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The numbers of ranks `low` and `low + 1` among x [n], found by counting for each what is below it: pair [2]. Ties are
// ranked by their place.
KERNEL ranked_pair(const float* x, u32 n, u32 low, float* pair) {
  __shared__ u32 tile[256];
  u64 i = global_thread();
  u32 mine = i < n ? order(x[i]) : 0, rank = 0;
  for (u32 start = 0; start < n; start += 256) {
    __syncthreads();
    if (start + threadIdx.x < n) tile[threadIdx.x] = order(x[start + threadIdx.x]);
    __syncthreads();
    u32 count = min(256u, n - start);
    for (u32 j = 0; j < count; j++) rank += tile[j] < mine || (tile[j] == mine && start + j < i);
  }
  if (i >= n) return;
  if (rank == low) pair[0] = x[i];
  if (rank == low + 1) pair[1] = x[i];
}
EXPORT(ranked_pair)

// Between the two of a pair, in float64 as on the processor; the first alone where `share` is zero.
KERNEL interpolate(const float* pair, float share, float* y) {
  y[0] = share == 0.0f ? pair[0] : (float)((double)pair[0] * (1.0 - (double)share) + (double)pair[1] * (double)share);
}
EXPORT(interpolate)

// The sums over all threads of a block of 256, in thread 0.
__device__ __forceinline__ double block_total(double x) {
  __shared__ double sums[8];
  x = warp_sum_double(x);
  __syncthreads();
  if (lane_of_warp() == 0) sums[threadIdx.x / WARP] = x;
  __syncthreads();
  if (threadIdx.x > 0) return 0.0;
  for (u32 w = 1; w < 8; w++) x += sums[w];
  return x;
}

// By one block: y [7] = mean, standard deviation, mean magnitude, minimum, maximum, share of magnitudes of at least
// one, mean square (ops/summary.rs).
KERNEL summary(const float* x, u32 n, float* y) {
  __shared__ float lows[8], highs[8];
  __shared__ double middle;
  double sum = 0, magnitude = 0, large = 0, squares = 0, spread = 0;
  float low = __uint_as_float(0x7f800000u), high = -low;  // infinite
  for (u32 i = threadIdx.x; i < n; i += 256) {
    float v = x[i];
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
  for (u32 i = threadIdx.x; i < n; i += 256) spread += (x[i] - middle) * (x[i] - middle);
  spread = block_total(spread);
  if (threadIdx.x > 0) return;
  for (u32 w = 1; w < 8; w++) low = fminf(low, lows[w]), high = fmaxf(high, highs[w]);
  y[0] = (float)middle;
  y[1] = (float)sqrt(spread / n);
  y[2] = (float)(magnitude / n);
  y[3] = low;
  y[4] = high;
  y[5] = (float)(large / n);
  y[6] = (float)(squares / n);
}
EXPORT(summary)

// state [3] moves towards two fresh numbers and one: state = (1 - rate) state + rate fresh.
KERNEL move_running(float* state, const float* first, const float* second, float rate) {
  state[0] = (1.0f - rate) * state[0] + rate * first[0];
  state[1] = (1.0f - rate) * state[1] + rate * second[0];
  state[2] = (1.0f - rate) * state[2] + rate;
}
EXPORT(move_running)

// Offset and scale from running percentiles (`spread` 0) or moments (1), of at least `limit`; `debias` divides by the
// third number, of at least `rate`.
KERNEL running_stats(const float* state, u32 moments, u32 debias, float rate, float limit, float* stats) {
  float correct = debias ? 1.0f / fmaxf(state[2], rate) : 1.0f, a = state[0] * correct, b = state[1] * correct;
  stats[0] = a;
  stats[1] = fmaxf(moments ? sqrtf(fmaxf(b - a * a, 0.0f)) : b - a, limit);
}
EXPORT(running_stats)
