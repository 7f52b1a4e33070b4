// Shared by the recurrence's kernels (scan.cu, scan_grad.cu): products of 16 rows with packed weights, spread over many
// thread blocks, and norms whose sums are added up across these.
//
// A step of the recurrence is a chain of products [16, k] [k, n] with norms in between. Its time goes into reading
// weights and waiting for the previous kernel, so every block takes a few columns and all of k, which its eight warps
// split, and the next kernel of the chain begins to load its weights while this one ends.

constexpr u32 ROWS = 16;   // of the batch that a block of threads takes
constexpr u32 PANEL = 16;  // columns that a tile of a product has
constexpr u32 SPAN = 32;   // of the depth k that a warp takes at a time
constexpr u32 WARPS = 8;   // of a block
constexpr u32 THREADS = WARP * WARPS;
constexpr u32 TILE = SPAN * PANEL;  // numbers of a packed weight that lie together

// Two blocks on a multiprocessor at least, so that one can load weights while the other works.
#ifndef EMULATED
#undef KERNEL
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 2)
// Declared once for all: templates share it.
extern __shared__ __align__(1024) char shared_bytes[];
#undef SHARED
#define SHARED(type, name) type* name = (type*)shared_bytes
#endif

__device__ __forceinline__ u32 ceil_div(u32 a, u32 b) { return (a + b - 1) / b; }

// ---- Numbers in memory. What an earlier kernel of the chain wrote is read past the L1 cache, which may hold older
// values.

__device__ __forceinline__ float fresh(const float* x) { return __ldcg(x); }
__device__ __forceinline__ float fresh(const bf16* x) { return number(bf16{__ldcg(&x->bits)}); }

// Eight neighbouring numbers of a row, as products take them.
#ifdef ACT_BF16
struct alignas(16) Eight {
  u32 pair[4];
};
#else
struct Eight {
  float pair[8];
};
#endif

// Eight numbers from `x` on, zeros beyond `count`. Rows of bfloat16 have a multiple of eight numbers and begin at a
// multiple of 16 bytes.
__device__ __forceinline__ Eight load_eight(const act* x, int count) {
  Eight v = {};
#ifdef ACT_BF16
  if (count > 0) {
    uint4 words = __ldcg((const uint4*)x);
    v.pair[0] = words.x, v.pair[1] = words.y, v.pair[2] = words.z, v.pair[3] = words.w;
  }
#else
  for (int e = 0; e < 8; e++)
    if (e < count) v.pair[e] = __ldcg(x + e);
#endif
  return v;
}

__device__ __forceinline__ void unpack(const Eight& v, float (&x)[8]) {
#ifdef ACT_BF16
  for (u32 i = 0; i < 4; i++) {
    x[2 * i] = __uint_as_float(v.pair[i] << 16);
    x[2 * i + 1] = __uint_as_float(v.pair[i] & 0xffff0000u);
  }
#else
  for (u32 e = 0; e < 8; e++) x[e] = v.pair[e];
#endif
}

__device__ __forceinline__ Eight pack_eight(const float (&x)[8]) {
  Eight v;
#ifdef ACT_BF16
  for (u32 i = 0; i < 4; i++) v.pair[i] = bf16_pair(x[2 * i], x[2 * i + 1]);
#else
  for (u32 e = 0; e < 8; e++) v.pair[e] = x[e];
#endif
  return v;
}

// Eight numbers of a parameter, as by `load_eight`; with bfloat16 they, too, are aligned to 16 bytes.
__device__ __forceinline__ void load_parameters(const float* x, int count, float (&v)[8]) {
#ifdef ACT_BF16
  float4 low = {}, high = {};
  if (count > 0) low = __ldg((const float4*)x), high = __ldg((const float4*)x + 1);
  v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w, v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
#else
  for (int e = 0; e < 8; e++) v[e] = e < count ? __ldg(x + e) : 0.0f;
#endif
}

// ---- Functions: exact in float32, otherwise as exact as results in bfloat16 need.

__device__ __forceinline__ float quick_tanh(float x) {
#if defined(ACT_BF16) && !defined(EMULATED)
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));  // one instruction
  return y;
#else
  return tanhf(x);
#endif
}

__device__ __forceinline__ float quick_sigmoid(float x) {
#ifdef ACT_BF16
  return 0.5f * quick_tanh(0.5f * x) + 0.5f;
#else
  return sigmoid(x);
#endif
}

__device__ __forceinline__ float silu(float x) { return x * quick_sigmoid(x); }

__device__ __forceinline__ float silu_slope(float x) {
  float s = quick_sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

// ---- Rows of a product's left factor. `row(i, offset)` is row i from number `offset` on, as one thread reads it:
// `at(k)` gives eight numbers from k on.

// Rows as they are in memory: `rows` rows of `width` numbers, `stride` apart.
struct Plain {
  struct Row {
    const act* x;
    int count;
    __device__ __forceinline__ Eight at(u32 k) const { return load_eight(x + k, count - (int)k); }
  };
  const act* x;
  u64 stride;
  u32 rows, width;
  __device__ __forceinline__ Row row(u32 i, u32 offset) const {
    return Row{x + i * stride + offset, i < rows ? (int)width - (int)offset : 0};
  }
};

// silu(norm(x)), with the factors that normalise the rows in `inverse`.
struct Normed {
  struct Row {
    Plain::Row x;
    const float* scale;
    float inverse;
    __device__ __forceinline__ Eight at(u32 k) const {
      float v[8], g[8];
      unpack(x.at(k), v);
      load_parameters(scale + k, x.count - (int)k, g);
      for (u32 e = 0; e < 8; e++) v[e] = silu(v[e] * inverse * g[e]);
      return pack_eight(v);
    }
  };
  Plain x;
  const float* scale;
  const float* inverse;
  __device__ __forceinline__ Row row(u32 i, u32 offset) const {
    return Row{x.row(i, offset), scale + offset, inverse[i]};
  }
};

// The gradient of x from that of y = silu(norm(x)), `dy`; `mean` is the mean of `of_norm` (scan_grad.cu) over each row.
struct NormGrad {
  struct Row {
    Plain::Row x, dy;
    const float* scale;
    float inverse, mean;
    __device__ __forceinline__ Eight at(u32 k) const {
      float v[8], d[8], g[8];
      unpack(x.at(k), v);
      unpack(dy.at(k), d);
      load_parameters(scale + k, x.count - (int)k, g);
      for (u32 e = 0; e < 8; e++) {
        float normed = v[e] * inverse;
        v[e] = inverse * (d[e] * silu_slope(normed * g[e]) * g[e] - normed * mean);
      }
      return pack_eight(v);
    }
  };
  Plain x, dy;
  const float* scale;
  const float* inverse;
  const float* mean;
  __device__ __forceinline__ Row row(u32 i, u32 offset) const {
    return Row{x.row(i, offset), dy.row(i, offset), scale + offset, inverse[i], mean[i]};
  }
};

// Rows of a followed by those of b, which begin at number `first`, a multiple of SPAN.
template <class A, class B>
struct Joined {
  struct Row {
    typename A::Row a;
    typename B::Row b;
    u32 first;
    __device__ __forceinline__ Eight at(u32 k) const { return k < first ? a.at(k) : b.at(k - first); }
  };
  A a;
  B b;
  u32 first;
  __device__ __forceinline__ Row row(u32 i, u32 offset) const { return Row{a.row(i, offset), b.row(i, offset), first}; }
};

// ---- Products.

__device__ __forceinline__ uint4 load_weights(const uint4* w) {
#ifdef EMULATED
  return *w;
#else
  uint4 v;
  // Volatile keeps this after the wait, as the kernel before may have packed the weight.
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(w));
  return v;
#endif
}

// The L2 cache's policy for weights: those that it has room for stay there from step to step, and others pass through
// without evicting those.
__device__ __forceinline__ u64 cache_policy(bool stays) {
  u64 policy = 0;
#ifndef EMULATED
  if (stays)
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  else
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  return policy;
}

__device__ __forceinline__ uint4 load_weights(const uint4* w, u64 policy) {
#ifdef EMULATED
  return *w;
#else
  uint4 v;
  // Volatile, and not a read-only load (.nc): otherwise the compiler moves it behind the wait.
  asm volatile("ld.global.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(w), "l"(policy));
  return v;
#endif
}

// A block's share of a product: up to N neighbouring panels, of which `used` exist, over spans up to `last`. The panels
// of a packed weight (`pack` in scan.cu) follow each other, each with `spans` tiles. Each warp has its own sums, over
// every eighth span. Made before the wait, so that the first weights are on their way.
template <u32 N>
struct Product {
  static constexpr u32 AHEAD = N == 1 ? 4 : N < 4 ? 2 : 1;  // spans whose weights are loaded ahead
  static constexpr u32 WIDTH = N * PANEL + 8;               // of a row of sums in shared memory: no bank conflicts
  const act* w;
  u32 spans, next, last, used;
  float sums[N][2][4];
#ifdef ACT_BF16
  u64 policy;
  uint4 ahead[AHEAD][N][2];

  __device__ __forceinline__ void load(u32 i, u32 span) {
    if (span >= last) return;
#pragma unroll
    for (u32 n = 0; n < N; n++) {
      if (n >= used) continue;
      const uint4* tile = (const uint4*)(w + ((u64)n * spans + span) * TILE) + lane_of_warp();
      ahead[i][n][0] = load_weights(tile, policy);
      ahead[i][n][1] = load_weights(tile + WARP, policy);
    }
  }
#endif

  __device__ __forceinline__ Product(const act* w, u32 spans, u32 last, u32 used, u32 stays)
      : w(w), spans(spans), next(threadIdx.x / WARP), last(last), used(used) {
#ifdef ACT_BF16
    policy = cache_policy(stays);
#endif
    for (u32 n = 0; n < N; n++)
      for (u32 r = 0; r < 8; r++) sums[n][r / 4][r % 4] = 0.0f;
    begin();
  }

  __device__ __forceinline__ void begin() {
#ifdef ACT_BF16
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
      // Registers that are not loaded would otherwise have to keep their values from the step before, and spill.
#pragma unroll
      for (u32 n = 0; n < N; n++) ahead[i][n][0] = ahead[i][n][1] = uint4{};
      load(i, next + i * WARPS);
    }
#endif
  }

  // Goes on with another weight, whose product is added.
  __device__ __forceinline__ void with(const act* other, u32 others, u32 end) {
    w = other, spans = others, next = threadIdx.x / WARP, last = end;
    begin();
  }

#ifdef ACT_BF16
  // On tensor cores. With g = lane / 4 and t = lane % 4, a thread holds eight numbers of rows g and g + 8, from 8 t on
  // in each span: packed weights have their rows in the matching order.
  template <class Rows>
  __device__ __forceinline__ void run(const Rows& rows) {
    u32 g = lane_of_warp() / 4, t = lane_of_warp() % 4;
    auto upper = rows.row(g, 8 * t), lower = rows.row(g + 8, 8 * t);
    for (u32 span = next; span < last; span += AHEAD * WARPS) {
      Eight top[AHEAD] = {}, low[AHEAD] = {};
#pragma unroll
      for (u32 i = 0; i < AHEAD; i++) {
        if (span + i * WARPS >= last) continue;
        top[i] = upper.at((span + i * WARPS) * SPAN);
        low[i] = lower.at((span + i * WARPS) * SPAN);
      }
#pragma unroll
      for (u32 i = 0; i < AHEAD; i++) {
        if (span + i * WARPS >= last) continue;
        u32 first[4] = {top[i].pair[0], low[i].pair[0], top[i].pair[1], low[i].pair[1]};
        u32 second[4] = {top[i].pair[2], low[i].pair[2], top[i].pair[3], low[i].pair[3]};
#pragma unroll
        for (u32 n = 0; n < N; n++) {
          if (n >= used) continue;
#pragma unroll
          for (u32 half = 0; half < 2; half++) {
            const uint4& b = ahead[i][n][half];
            mma(sums[n][half], first, b.x, b.y);
            mma(sums[n][half], second, b.z, b.w);
          }
        }
        load(i, span + (i + AHEAD) * WARPS);
      }
    }
  }

  __device__ __forceinline__ void store(float* to) const {
    u32 g = lane_of_warp() / 4, t = lane_of_warp() % 4;
#pragma unroll
    for (u32 n = 0; n < N; n++)
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        float* at = to + g * WIDTH + n * PANEL + half * 8 + 2 * t;
        *(float2*)at = float2{sums[n][half][0], sums[n][half][1]};
        *(float2*)(at + 8 * WIDTH) = float2{sums[n][half][2], sums[n][half][3]};
      }
  }
#else
  // On CUDA cores: a thread has half a row of each panel.
  template <class Rows>
  __device__ __forceinline__ void run(const Rows& rows) {
    u32 half = lane_of_warp() % 2 * 8;
    auto row = rows.row(lane_of_warp() / 2, 0);
    for (u32 span = next; span < last; span += WARPS) {
      float part[N][8] = {};  // added up span by span: a long sum in one go rounds more
      for (u32 offset = 0; offset < SPAN; offset += 8) {
        Eight x = row.at(span * SPAN + offset);
        for (u32 n = 0; n < used; n++) {
          const float* tile = w + ((u64)n * spans + span) * TILE + offset * PANEL + half;
          for (u32 e = 0; e < 8; e++)
            for (u32 j = 0; j < 8; j++) part[n][j] += x.pair[e] * tile[e * PANEL + j];
        }
      }
      for (u32 n = 0; n < N; n++)
        for (u32 j = 0; j < 8; j++) sums[n][j / 4][j % 4] += part[n][j];
    }
  }

  __device__ __forceinline__ void store(float* to) const {
    u32 row = lane_of_warp() / 2, half = lane_of_warp() % 2 * 8;
    for (u32 n = 0; n < N; n++)
      for (u32 j = 0; j < 8; j++) to[row * WIDTH + n * PANEL + half + j] = sums[n][j / 4][j % 4];
  }
#endif

  // Leaves the sums of all warps in shared memory [WARPS, ROWS, WIDTH], for `sum`.
  __device__ __forceinline__ void share(float* shared) const {
    store(shared + threadIdx.x / WARP * ROWS * WIDTH);
    __syncthreads();
  }

  // The product's number in `column` of panel n.
  static __device__ __forceinline__ float sum(const float* shared, u32 row, u32 n, u32 column) {
    float x = 0.0f;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) x += shared[(w * ROWS + row) * WIDTH + n * PANEL + column];
    return x;
  }
};

// After a product thread i of a block has row i / 16 and column i % 16 of each panel.
__device__ __forceinline__ u32 own_row() { return threadIdx.x / PANEL; }
__device__ __forceinline__ u32 own_column() { return threadIdx.x % PANEL; }

// ---- Sums over rows that are spread over many blocks: each block leaves one number per row in slots [blocks, rows],
// and every block that needs the sum adds them up in order.

// Writes the sum of `x` over the threads of each row to slot `slot`.
__device__ __forceinline__ void leave(float* slots, u32 slot, u32 rows, u32 row0, float x) {
  x = sum_among(x, PANEL);
  u32 row = row0 + own_row();
  if (own_column() == 0 && row < rows) slots[(u64)slot * rows + row] = x;
}

// Adds up `count` slots for each row of the block: out [ROWS] in shared memory.
__device__ __forceinline__ void add_up(const float* slots, u32 count, u32 rows, u32 row0, float* out) {
  u32 row = row0 + own_row();
  float x = 0.0f;
  if (row < rows)
    for (u32 i = own_column(); i < count; i += PANEL) x += __ldcg(slots + (u64)i * rows + row);
  x = sum_among(x, PANEL);
  if (own_column() == 0) out[own_row()] = x;
}

// The factor that normalises a row of n numbers with this sum of squares.
__device__ __forceinline__ float inverse_of(float squares, u32 n, float epsilon) {
  return 1.0f / sqrtf(squares / n + epsilon);
}

// ---- Categorical distributions. Some neighbouring threads of a warp take a group of classes together, each a few
// neighbouring ones.

// A thread's part: number `lane` of `width` threads (a power of two), with classes `first` to `last`.
struct Part {
  u32 width, lane, first, last;
  __device__ __forceinline__ float sum(float x) const { return sum_among(x, width); }
  __device__ __forceinline__ float most(float x) const { return max_among(x, width); }
  __device__ __forceinline__ u32 least(u32 x) const { return min_among(x, width); }
  // The sum over the threads before this one.
  __device__ __forceinline__ float before(float x) const { return sum_before(x, lane, width); }
};

__device__ __forceinline__ Part part_of(u32 classes) {
  u32 width = 1;
  while (width < WARP && width < classes) width *= 2;
  u32 lane = lane_of_warp() % width, each = ceil_div(classes, width);
  return Part{width, lane, min(lane * each, classes), min((lane + 1) * each, classes)};
}

// A group's softmax, mixed with a share `unimix` of the uniform distribution.
struct Mixture {
  const float* logits;
  u32 classes;
  float max, sum, unimix;
  __device__ __forceinline__ float soft(u32 k) const { return expf(logits[k] - max) / sum; }
  __device__ __forceinline__ float mixed(u32 k) const { return (1.0f - unimix) * soft(k) + unimix / classes; }
};

__device__ __forceinline__ Mixture mixture_of(const Part& part, const float* logits, u32 classes, float unimix) {
  float max = logits[0], sum = 0.0f;
  for (u32 k = part.first; k < part.last; k++) max = fmaxf(max, logits[k]);
  max = part.most(max);
  for (u32 k = part.first; k < part.last; k++) sum += expf(logits[k] - max);
  return Mixture{logits, classes, max, part.sum(sum), unimix};
}

// The class in whose share of the unit interval `u` falls, the same in all threads of the part.
__device__ __forceinline__ u32 quantile(const Part& part, const Mixture& m, float u) {
  float own = 0.0f;
  for (u32 k = part.first; k < part.last; k++) own += m.mixed(k);
  float total = part.sum(own), sum = part.before(own);
  u32 found = m.classes - 1;
  for (u32 k = part.first; k < part.last; k++) {
    sum += m.mixed(k);
    if (!(sum <= u * total)) found = min(found, k);  // with NaN the first class, as elsewhere
  }
  return part.least(found);
}

// The class of the largest log-probability plus noise, ties to the lowest index; the same in all threads of the part.
__device__ __forceinline__ u32 perturbed_max(const Part& part, const Mixture& m, const float* noise) {
  u32 best = m.classes;
  float most = -__uint_as_float(0x7f800000u);  // infinity
  for (u32 k = part.first; k < part.last; k++) {
    // Without a mixture, logits differ from log-probabilities by a constant only, and keep exact ties.
    float x = (m.unimix > 0.0f ? logf(m.mixed(k)) : m.logits[k]) + noise[k];
    if (best == m.classes || x > most) best = k, most = x;
  }
  for (u32 mask = part.width / 2; mask > 0; mask /= 2) {
    float x = __shfl_xor_sync(ALL, most, mask);
    u32 k = __shfl_xor_sync(ALL, best, mask);
    if (x > most || (x == most && k < best)) best = k, most = x;
  }
  return min(__shfl_sync(ALL, best, lane_of_warp() - part.lane),
             m.classes - 1);  // one answer for all threads, with NaN too
}
