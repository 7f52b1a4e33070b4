// Copies between layouts: joins, slices, transpositions and masks of the outer axes.

// Element (i, j, k) of [a, b, n]: from `from[i si + j sj + k]` to `to[i ti + j tj + k]`. A null `from` stands for zeros.
KERNEL copy_rows(const float* from, u32 si, u32 sj, float* to, u32 ti, u32 tj, u32 a, u32 b, u32 n) {
  u64 at = global_thread();
  if (at >= (u64)a * b * n) return;
  u32 k = at % n, j = at / n % b, i = at / n / b;
  to[(u64)i * ti + (u64)j * tj + k] = from ? from[(u64)i * si + (u64)j * sj + k] : 0.0f;
}
EXPORT(copy_rows)

// Rows of `n` numbers where `keep` is not zero; zeros elsewhere, whatever was there.
KERNEL mask_rows(const float* x, const float* keep, float* y, u32 rows, u32 n) {
  u64 at = global_thread();
  if (at < (u64)rows * n) y[at] = keep[at / n] != 0.0f ? x[at] : 0.0f;
}
EXPORT(mask_rows)

KERNEL to_bf16(const float* x, u32 n, bf16* y) {
  u64 i = global_thread();
  if (i < n) y[i] = rounded<bf16>(x[i]);
}
EXPORT(to_bf16)

KERNEL to_f32(const bf16* x, u32 n, float* y) {
  u64 i = global_thread();
  if (i < n) y[i] = number(x[i]);
}
EXPORT(to_f32)

// To half precision, to nearest, ties to even.
KERNEL to_f16(const float* x, u32 n, unsigned short* y) {
  u64 i = global_thread();
  if (i >= n) return;
  u32 bits = __float_as_uint(x[i]), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  u32 half;
  if (size > 0x7f800000u) half = 0x7e00u;                                               // not a number
  else if (size >= 0x47800000u) half = 0x7c00u;                                         // 65536 and more
  else if (size < 0x38800000u) half = (u32)rintf(__uint_as_float(size) * 16777216.0f);  // below the normal ones
  else half = (size + 0xfffu + (size >> 13 & 1u) >> 13) - (112u << 10);
  y[i] = (unsigned short)(sign | half);
}
EXPORT(to_f16)

// The place of the one in each group of `classes` numbers.
KERNEL class_index(const float* x, u32 groups, u32 classes, u8* y) {
  u64 i = global_thread();
  if (i >= groups) return;
  u32 index = 0;
  for (u32 k = 0; k < classes; k++)
    if (x[i * classes + k] == 1.0f) index = k;
  y[i] = (u8)index;
}
EXPORT(class_index)
