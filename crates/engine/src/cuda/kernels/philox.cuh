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

// The draws of one stream for rows of a larger whole (ops/noise.rs): row `r` of `width` has the indices from
// `(first + r stride) width` on. The step is read from memory where `step_at` is not null.
struct Draws {
  u32 key0, key1, stream, step;
  const u32* step_at;
  u32 first, stride, width;

  __device__ __forceinline__ Words words(u64 index) const {
    return philox(key0, key1, stream, step_at ? *step_at : step, index);
  }
  __device__ __forceinline__ u64 index(u64 i) const { return (first + i / width * stride) * width + i % width; }
  // Number `i` of all rows: uniform in (0, 1), or standard normal.
  __device__ __forceinline__ float uniform(u64 i) const {
    u64 at = index(i);
    Words w = words(at / 4);
    return open_unit(at % 4 == 0 ? w.x[0] : at % 4 == 1 ? w.x[1] : at % 4 == 2 ? w.x[2] : w.x[3]);
  }
  __device__ __forceinline__ float normal(u64 i) const {
    Words w = words(index(i));
    double radius = sqrt(-2.0 * log((double)open_unit(w.x[0])));
    return (float)(radius * cospi(2.0 * (double)open_unit(w.x[1])));
  }
};
#define DRAWS u32 key0, u32 key1, u32 stream, u32 step, const u32 *step_at, u32 first, u32 stride, u32 width
#define DRAWS_NAMES key0, key1, stream, step, step_at, first, stride, width
#define DRAWS_VALUE Draws{DRAWS_NAMES}
