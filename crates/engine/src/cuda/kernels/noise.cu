// Counter-based random numbers, the same as the processor's (rng.rs): Philox 4x32-10.

struct Words { u32 x[4]; };

__device__ __forceinline__ Words philox(u32 key0, u32 key1, u32 stream, u32 step, u64 index) {
  Words w{{(u32)index, (u32)(index >> 32), stream, step}};
  for (u32 round = 0; round < 10; round++) {
    u64 a = 0xD2511F53ull * w.x[0], b = 0xCD9E8D57ull * w.x[2];
    w = Words{{(u32)(b >> 32) ^ w.x[1] ^ key0, (u32)b, (u32)(a >> 32) ^ w.x[3] ^ key1, (u32)a}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return w;
}

// The upper 23 bits of a word as a number strictly between 0 and 1.
__device__ __forceinline__ float open_unit(u32 word) { return ((float)(word >> 9) + 0.5f) * (1.0f / 8388608.0f); }

// Draws for rows [rows, width]: row `r` has the indices from `(first + r stride) width` on. The step is read from memory
// where `step_at` is not null.
KERNEL uniform(u32 key0, u32 key1, u32 stream, u32 step, const u32* step_at, u32 first, u32 stride, u32 rows, u32 width, float* y) {
  u64 i = global_thread();
  if (i >= (u64)rows * width) return;
  if (step_at) step = *step_at;
  u64 index = (first + i / width * stride) * width + i % width;
  y[i] = open_unit(philox(key0, key1, stream, step, index / 4).x[index % 4]);
}
EXPORT(uniform)

KERNEL normal(u32 key0, u32 key1, u32 stream, u32 step, const u32* step_at, u32 first, u32 stride, u32 rows, u32 width,
              float* y) {
  u64 i = global_thread();
  if (i >= (u64)rows * width) return;
  if (step_at) step = *step_at;
  Words w = philox(key0, key1, stream, step, (first + i / width * stride) * width + i % width);
  double radius = sqrt(-2.0 * log((double)open_unit(w.x[0])));
  y[i] = (float)(radius * cos(6.283185307179586 * (double)open_unit(w.x[1])));
}
EXPORT(normal)
