// Copies between layouts: joins, slices, transpositions and masks of the outer axes, of numbers of any type.

#define JOBS 80u
#define UNITS 1024u  // that a block copies

// Several copies at once. Element (i, j, k) of [.., b, n] goes from `from + i si + j sj + k` to `to + i ti + j tj + k`,
// all counted in units of `unit` bytes; there are `len` elements. A null `from` stands for zeros. `end` counts the
// blocks of this job and those before it.
struct Jobs {
  const char* from[JOBS];
  char* to[JOBS];
  u32 si[JOBS], sj[JOBS], ti[JOBS], tj[JOBS], b[JOBS], n[JOBS], len[JOBS], end[JOBS];
};

template <class Unit> __device__ __forceinline__ void copy_units(const Jobs& jobs, u32 job, u32 first) {
  const Unit* from = (const Unit*)jobs.from[job];
  Unit* to = (Unit*)jobs.to[job];
  u32 b = jobs.b[job], n = jobs.n[job], last = min(first + UNITS, jobs.len[job]);
  for (u32 at = first + threadIdx.x; at < last; at += blockDim.x) {
    u32 k = at % n, j = at / n % b, i = at / n / b;
    Unit value{};
    if (from) value = from[(u64)i * jobs.si[job] + (u64)j * jobs.sj[job] + k];
    to[(u64)i * jobs.ti[job] + (u64)j * jobs.tj[job] + k] = value;
  }
}

KERNEL copy(const __grid_constant__ Jobs jobs, u32 count, u32 unit) {
  wait_for_previous();
  u32 job = table_row(jobs.end, count, blockIdx.x), first = (blockIdx.x - (job ? jobs.end[job - 1] : 0)) * UNITS;
  if (unit == 16) copy_units<uint4>(jobs, job, first);
  else if (unit == 8) copy_units<uint2>(jobs, job, first);
  else if (unit == 4) copy_units<u32>(jobs, job, first);
  else copy_units<unsigned short>(jobs, job, first);
}
EXPORT(copy)

// Copies rows of `n` units where `keep` is not zero; elsewhere writes zeros, even if x is NaN there.
template <class Unit> __device__ __forceinline__ void mask_units(const Unit* x, const float* keep, Unit* y, u32 rows, u32 n) {
  u64 at = global_thread();
  if (at >= (u64)rows * n) return;
  Unit value{};
  if (keep[at / n] != 0.0f) value = x[at];
  y[at] = value;
}

KERNEL mask_rows(const void* x, const float* keep, void* y, u32 rows, u32 n, u32 unit) {
  wait_for_previous();
  if (unit == 16) mask_units((const uint4*)x, keep, (uint4*)y, rows, n);
  else if (unit == 8) mask_units((const uint2*)x, keep, (uint2*)y, rows, n);
  else if (unit == 4) mask_units((const u32*)x, keep, (u32*)y, rows, n);
  else mask_units((const unsigned short*)x, keep, (unsigned short*)y, rows, n);
}
EXPORT(mask_rows)

// Conversions between the types, `each` (8 or 1) numbers per thread.
template <u32 N, class From, class To> __device__ __forceinline__ void cast_some(const From* x, u32 n, To* y) {
  u64 i = global_thread() * N;
  if (i < n) store(y + i, load<N>(x + i));
}

KERNEL to_bf16(const float* x, u32 n, u32 each, bf16* y) {
  wait_for_previous();
  if (each == 8) cast_some<8>(x, n, y);
  else cast_some<1>(x, n, y);
}
EXPORT(to_bf16)

KERNEL to_f32(const bf16* x, u32 n, u32 each, float* y) {
  wait_for_previous();
  if (each == 8) cast_some<8>(x, n, y);
  else cast_some<1>(x, n, y);
}
EXPORT(to_f32)

// Rounds to half precision, to nearest, ties to even.
KERNEL to_f16(const float* x, u32 n, unsigned short* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= n) return;
  u32 bits = __float_as_uint(x[i]), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  u32 half;
  if (size > 0x7f800000u) half = 0x7e00u;                                               // not a number
  else if (size >= 0x47800000u) half = 0x7c00u;                                         // 65536 and more
  else if (size < 0x38800000u) half = (u32)rintf(__uint_as_float(size) * 16777216.0f);  // subnormal
  else half = (size + 0xfffu + (size >> 13 & 1u) >> 13) - (112u << 10);
  y[i] = (unsigned short)(sign | half);
}
EXPORT(to_f16)

// The index of the 1 in each group of `classes` numbers.
KERNEL class_index(const float* x, u32 groups, u32 classes, u8* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= groups) return;
  u32 index = 0;
  for (u32 k = 0; k < classes; k++)
    if (x[i * classes + k] == 1.0f) index = k;
  y[i] = (u8)index;
}
EXPORT(class_index)

// Assembles a batch's images [n, words] from slots of a store or, for a source of -1 - i, from the i-th image sent with
// the batch. Sent images are also put into a slot, unless it is -1. No slot is both read and filled.
KERNEL frames(const u32* sent, u32* store, const int* source, const int* slot, u32 n, u32 words, u32* out) {
  wait_for_previous();
  u64 at = global_thread();
  if (at >= (u64)n * words) return;
  u32 step = at / words, word = at % words;
  int from = source[step], to = slot[step];
  u32 value = from < 0 ? sent[(u64)(-1 - from) * words + word] : store[(u64)from * words + word];
  out[at] = value;
  if (to >= 0) store[(u64)to * words + word] = value;
}
EXPORT(frames)
