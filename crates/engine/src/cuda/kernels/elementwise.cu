// Sums, products and means of whole tensors.

KERNEL fill(float* x, float value, u32 n) {
  u64 i = global_thread();
  if (i < n) x[i] = value;
}
EXPORT(fill)

// a += b
KERNEL add(float* a, const float* b, u32 n) {
  u64 i = global_thread();
  if (i < n) a[i] += b[i];
}
EXPORT(add)

// y = a b, or y += a b
KERNEL multiply(const float* a, const float* b, float* y, u32 n, u32 accumulate) {
  u64 i = global_thread();
  if (i < n) y[i] = (accumulate ? y[i] : 0.0f) + a[i] * b[i];
}
EXPORT(multiply)

// x = s times the only element of `factor`
KERNEL fill_from(float* x, const float* factor, float s, u32 n) {
  u64 i = global_thread();
  if (i < n) x[i] = s * factor[0];
}
EXPORT(fill_from)

// total = (accumulate ? total : 0) + scale mean(x), by one block, in float64 as on the processor.
KERNEL weighted_mean(const float* x, u32 n, float scale, float* total, u32 accumulate) {
  __shared__ double sums[32];
  double sum = 0;
  for (u32 i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
  sum = warp_sum_double(sum);
  if (lane_of_warp() == 0) sums[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (u32 w = 1; w < blockDim.x / WARP; w++) sum += sums[w];
  total[0] = (float)((accumulate ? (double)total[0] : 0.0) + (double)scale * sum / n);
}
EXPORT(weighted_mean)

// x / max(1, |x|)
KERNEL bound(const float* x, u32 n, float* y) {
  u64 i = global_thread();
  if (i < n) y[i] = x[i] / fmaxf(fabsf(x[i]), 1.0f);
}
EXPORT(bound)
