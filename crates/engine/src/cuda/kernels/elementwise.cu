// Sums, products and means of whole tensors.

KERNEL fill(float* x, float value, u32 n) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < n) x[i] = value;
}
EXPORT(fill)

// Writes four words from the arguments, which the driver copies at launch; a copy from the processor might wait for the
// stream.
KERNEL set_words(u32* x, u32 a, u32 b, u32 c, u32 d) {
  wait_for_previous();
  if (global_thread() > 0) return;
  x[0] = a;
  x[1] = b;
  x[2] = c;
  x[3] = d;
}
EXPORT(set_words)

// y = a + b, of the type of a; `each` (8 or 1) numbers per thread.
template <u32 N>
__device__ __forceinline__ void add_some(const void* a, u32 a_wide, const void* b, u32 b_wide, u32 n, void* y) {
  u64 i = global_thread() * N;
  if (i >= n) return;
  Some<N> v = load_either<N>(a, a_wide, i), w = load_either<N>(b, b_wide, i);
#pragma unroll
  for (u32 k = 0; k < N; k++) v.x[k] += w.x[k];
  store_either(y, a_wide, i, v);
}
KERNEL add(const void* a, u32 a_wide, const void* b, u32 b_wide, u32 n, u32 each, void* y) {
  wait_for_previous();
  if (each == 8) add_some<8>(a, a_wide, b, b_wide, n, y);
  else add_some<1>(a, a_wide, b, b_wide, n, y);
}
EXPORT(add)

#define TERMS 200u

// Pairs of tensors: for sums of products, factors; for their gradients, a factor and the place for its product with dy.
struct Terms {
  const float* a[TERMS];
  float* b[TERMS];
};

// y = the sum over all terms of a b, elementwise (plus the old y, to accumulate).
KERNEL sum_of_products(const __grid_constant__ Terms terms, u32 count, u32 n, u32 accumulate, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float sum = accumulate ? y[i] : 0.0f;
  for (u32 t = 0; t < count; t++) sum += terms.a[t][i] * terms.b[t][i];
  y[i] = sum;
}
EXPORT(sum_of_products)

// b = a dy for all terms.
KERNEL products_with(const __grid_constant__ Terms terms, u32 count, u32 n, const float* dy) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float d = dy[i];
  for (u32 t = 0; t < count; t++) terms.b[t][i] = terms.a[t][i] * d;
}
EXPORT(products_with)

#define MEANS 160u

struct Means {
  const void* x[MEANS];
  u32 n[MEANS];
  float scale[MEANS];
  u32 wide[MEANS];
};

// Means of many tensors, a block for each, in float64 as on the processor; and, if `total` is not null, their sum
// weighted by the scales (plus the old total, to accumulate), by the last block.
KERNEL_1024 means(const __grid_constant__ Means t, u32 count, float* means, double* exact, u32* counter, u32 accumulate,
             float* total) {
  wait_for_previous();
  Either x{t.x[blockIdx.x], t.wide[blockIdx.x]};
  u32 n = t.n[blockIdx.x];
  double sum = 0;
  for (u32 i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
  sum = block_sum(sum) / n;
  if (threadIdx.x == 0) {
    if (means) means[blockIdx.x] = (float)sum;
    if (total) exact[blockIdx.x] = sum;
  }
  if (!total || !last_to_arrive(counter, count) || threadIdx.x > 0) return;
  sum = accumulate ? (double)total[0] : 0.0;
  for (u32 i = 0; i < count; i++) sum += (double)t.scale[i] * __ldcg(exact + i);
  total[0] = (float)sum;
}
EXPORT(means)

struct Fills {
  float* x[MEANS];
  u32 n[MEANS], end[MEANS];  // `end` counts blocks of 256 numbers
  float scale[MEANS];
};

// Each x = its scale times the only element of `factor`.
KERNEL fill_from(const __grid_constant__ Fills t, u32 count, const float* factor) {
  wait_for_previous();
  u32 row = table_row(t.end, count, blockIdx.x), i = (blockIdx.x - (row ? t.end[row - 1] : 0)) * 256 + threadIdx.x;
  if (i < t.n[row]) t.x[row][i] = t.scale[row] * factor[0];
}
EXPORT(fill_from)

// x / max(1, |x|)
KERNEL bound(const void* x, u32 wide, u32 n, act* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  float v = Either{x, wide}[i];
  y[i] = rounded<act>(v / fmaxf(fabsf(v), 1.0f));
}
EXPORT(bound)
