// Linear and block-linear layers: products with weights, their gradients, sums of columns. The file is compiled in
// parts, in parallel: gemm, gemm_transposed and gemm_weight_grad.

#define MOST_USES 64u

// The factors of a weight's gradient: inputs and output gradients of each use (such as a step), `1 << shift` rows each.
struct Uses { const act *x[MOST_USES], *dy[MOST_USES]; };
struct Places { const void* x[MOST_USES]; };

// Flags of an output: it is float32 whatever activations are; sums are added to it; four neighbouring numbers may be
// written at once.
enum Flags : u32 { FULL = 1, ACCUMULATE = 2, FOURS = 4 };

// Adds bias, from column `j` on, and addend, from number `at` on, to four sums of a product, of which `count` exist.
__device__ __forceinline__ void add_four(float (&sums)[4], const float* bias, u32 j, const act* add, u64 at, u32 count,
                                         u32 flags) {
#pragma unroll
  for (u32 q = 0; q < 4; q++)
    if (bias && q < count) sums[q] += bias[j + q];
  if (!add) return;
  if (flags & FOURS) {
    float4 four = four_of(add + at);
    sums[0] += four.x, sums[1] += four.y, sums[2] += four.z, sums[3] += four.w;
    return;
  }
#pragma unroll
  for (u32 q = 0; q < 4; q++)
    if (q < count) sums[q] += number(add[at + q]);
}

// Writes four sums, of which `count` exist, to an output from number `at` on.
__device__ __forceinline__ void store_four(void* c, u64 at, const float (&sums)[4], u32 count, u32 flags) {
  if (flags & FULL) {
    float* to = (float*)c + at;
    if (flags & FOURS) {
      float4 before = flags & ACCUMULATE ? four_of(to) : float4{0.0f, 0.0f, 0.0f, 0.0f};
      set_four(to, before.x + sums[0], before.y + sums[1], before.z + sums[2], before.w + sums[3]);
    } else {
#pragma unroll
      for (u32 j = 0; j < 4; j++)
        if (j < count) to[j] = (flags & ACCUMULATE ? to[j] : 0.0f) + sums[j];
    }
    return;
  }
  act* to = (act*)c + at;
  if (flags & FOURS) return set_four(to, sums[0], sums[1], sums[2], sums[3]);
#pragma unroll
  for (u32 j = 0; j < 4; j++)
    if (j < count) to[j] = rounded<act>(sums[j]);
}

#ifdef ACT_BF16

// Writes four neighbouring sums of each of `rows` rows, `apart` numbers apart, from number `at` on, plus `bias` and
// `add`.
__device__ __forceinline__ void store_rows(void* c, u64 at, u32 apart, u32 rows, float (&sums)[4][4], const float* bias,
                                           const bf16* add, u32 count, u32 flags) {
  float more[4] = {};
  if (bias) {
#pragma unroll
    for (u32 q = 0; q < 4; q++)
      if (q < count) more[q] = bias[q];
  }
  if ((flags & (FOURS | ACCUMULATE)) == FOURS) {  // almost always, so it is kept short
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      if (i >= rows) return;
      float4 beside = add ? four_of(add + at + i * apart) : float4{0.0f, 0.0f, 0.0f, 0.0f};
      float x = sums[i][0] + more[0] + beside.x, y = sums[i][1] + more[1] + beside.y;
      float z = sums[i][2] + more[2] + beside.z, w = sums[i][3] + more[3] + beside.w;
      if (flags & FULL) set_four((float*)c + at + i * apart, x, y, z, w);
      else set_four((act*)c + at + i * apart, x, y, z, w);
    }
    return;
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++, at += apart) {
    if (i >= rows) return;
#pragma unroll
    for (u32 q = 0; q < 4; q++) sums[i][q] += more[q];
    if (add) add_four(sums[i], nullptr, 0, add, at, count, flags);
    store_four(c, at, sums[i], count, flags);
  }
}

// c [m, n] = the sum over up to three terms of a [m, k] b [k, n], + bias [n] + add [m, n], for `blocks` matrices that
// are `a_block`, .. apart. One term may itself be a sum over `laps` positions, `a_lap` and `b_lap` apart. The grid's
// third axis [parts, blocks] may split the depth: then `c` receives partial sums [parts, blocks, m, n].
#define GEMM_ARGS                                                                                                \
  const bf16 *a0, const bf16 *b0, u32 k0, u32 a_row0, u32 a_block0, const bf16 *a1, const bf16 *b1, u32 k1,       \
      u32 a_row1, u32 a_block1, const bf16 *a2, const bf16 *b2, u32 k2, u32 a_row2, u32 a_block2, u32 terms,      \
      u32 laps, u32 a_lap, u32 b_lap, u32 b_row, u32 b_block, void *c, u32 c_row, u32 c_block, const float *bias, \
      const bf16 *add, u32 m, u32 n, u32 blocks, u32 flags
#define GEMM_VALUES                                                                                                    \
  a0, b0, k0, a_row0, a_block0, a1, b1, k1, a_row1, a_block1, a2, b2, k2, a_row2, a_block2, terms, laps, a_lap, b_lap, \
      b_row, b_block, c, c_row, c_block, bias, add, m, n, blocks, flags

// If `TRANSPOSED`, b is stored as [n, k]. Rows of weights are multiples of 16 bytes; so are those of a if GRAIN is 8.
template <class T, bool TRANSPOSED, u32 GRAIN>
__device__ __forceinline__ void gemm_block(GEMM_ARGS) {
  SHARED(char, shared);
  u32 block = blockIdx.z % blocks, part = blockIdx.z / blocks, parts = gridDim.z / blocks;
  u32 row0 = blockIdx.y * T::ROWS, column0 = blockIdx.x * T::COLUMNS;
  auto steps_of = [](u32 k) { return (k + T::TILE_DEPTH - 1) / T::TILE_DEPTH; };
  u32 lap_steps = steps_of(k0) + steps_of(k1) + steps_of(k2), all = lap_steps * laps, each = (all + parts - 1) / parts;
  u32 first = min(part * each, all), steps = min(each, all - first);

  // What is loaded next: the lap, the term, and the position along the term's depth.
  u32 lap = steps > 0 ? first / lap_steps : 0, term = 0, d = (first - lap * lap_steps) * T::TILE_DEPTH;
  if (terms > 1 && d >= steps_of(k0) * T::TILE_DEPTH) term = 1, d -= steps_of(k0) * T::TILE_DEPTH;
  if (terms > 2 && term == 1 && d >= steps_of(k1) * T::TILE_DEPTH) term = 2, d -= steps_of(k1) * T::TILE_DEPTH;

  // Pointers, depth and row stride of that lap and term. They leave little to compute in each step, whose latency few
  // warps can hide.
  const bf16 *a, *b;
  u32 k, a_row;
  auto enter = [&] {
    k = term == 0 ? k0 : term == 1 ? k1 : k2, a_row = term == 0 ? a_row0 : term == 1 ? a_row1 : a_row2;
    u32 a_block = term == 0 ? a_block0 : term == 1 ? a_block1 : a_block2;
    a = (term == 0 ? a0 : term == 1 ? a1 : a2) + (u64)block * a_block + (u64)lap * a_lap + (u64)row0 * a_row;
    b = (term == 0 ? b0 : term == 1 ? b1 : b2) + (u64)block * b_block + (u64)lap * b_lap + (TRANSPOSED ? (u64)column0 * b_row : column0);
  };
  enter();
  auto load = [&](char* left, char* right) {
    const bf16 *from_a = a + d, *from_b = b + (TRANSPOSED ? d : (u64)d * b_row);
    fill_tile<T, GRAIN, T::ROWS, T::TILE_DEPTH / 8>(left, [&](u32, u32 row, u32 column) {
      return Spot{from_a + (row * a_row + column), row0 + row < m && d + column < k};
    });
    if (TRANSPOSED)
      fill_tile<T, 8, T::COLUMNS, T::TILE_DEPTH / 8>(right, [&](u32, u32 row, u32 column) {
        return Spot{from_b + (row * b_row + column), column0 + row < n && d + column < k};
      });
    else
      fill_tile<T, 8, T::TILE_DEPTH, T::COLUMNS / 8>(right, [&](u32, u32 row, u32 column) {
        return Spot{from_b + (row * b_row + column), d + row < k && column0 + column < n};
      });
    d += T::TILE_DEPTH;
    if (d < k) return;
    d = 0, term++;
    if (term == terms) term = 0, lap++;
    enter();
  };

  Sums<T> sums = {};
  multiply_tiles<T, true, TRANSPOSED>(sums, shared, steps, load);
  hand_out<T>(sums, shared, [&](u32 row, u32 column, float(&found)[4][4]) {
    u32 j = column0 + column, r = row0 + row;
    if (j >= n || r >= m) return;
    u64 at = parts > 1 ? (((u64)part * blocks + block) * m + r) * n + j : (u64)r * c_row + (u64)block * c_block + j;
    const float* more = bias ? bias + block * c_block + j : nullptr;
    store_rows(c, at, parts > 1 ? n : c_row, m - r, found, more, add, n - j, flags);
  });
}

// c [m, n] = (c +) the sum over all uses of xᵀ dy, for `blocks` matrices: `depth` rows in all. Parts as above.
#define WEIGHT_GRAD_ARGS                                                                                             \
  const __grid_constant__ Uses uses, u32 shift, u32 depth, u32 x_row, u32 x_block, u32 dy_row, u32 dy_block, float *c, \
      u32 c_block, u32 m, u32 n, u32 blocks, u32 flags
#define WEIGHT_GRAD_VALUES uses, shift, depth, x_row, x_block, dy_row, dy_block, c, c_block, m, n, blocks, flags

// Fills a tile whose lines run across the depth: row i from `line(i)` on, zeros beyond `rows` and `columns`.
template <class T, u32 GRAIN, u32 WIDTH, class Line>
__device__ __forceinline__ void fill_lines(char* tile, u32 rows, u32 columns, Line line) {
  fill_tile<T, GRAIN, T::TILE_DEPTH, WIDTH / 8>(tile, [&](u32, u32 row, u32 column) {
    return Spot{line(row) + column, row < rows && column < columns};
  });
}

template <class T, u32 GRAIN>
__device__ __forceinline__ void weight_grad_block(const Uses& uses, u32 shift, u32 depth, u32 x_row, u32 x_block, u32 dy_row,
                                                  u32 dy_block, float* c, u32 c_block, u32 m, u32 n, u32 blocks, u32 flags) {
  SHARED(char, shared);
  u32 block = blockIdx.z % blocks, part = blockIdx.z / blocks, parts = gridDim.z / blocks;
  u32 row0 = blockIdx.y * T::ROWS, column0 = blockIdx.x * T::COLUMNS;
  u32 all = (depth + T::TILE_DEPTH - 1) / T::TILE_DEPTH, each = (all + parts - 1) / parts;
  u32 first = min(part * each, all), steps = min(each, all - first), d = first * T::TILE_DEPTH;
  u32 within = (1u << shift) - 1;
  u64 x_first = (u64)block * x_block + row0, dy_first = (u64)block * dy_block + column0;
  auto load = [&](char* left, char* right) {
    u32 rows = depth - d;
    if ((within + 1) % T::TILE_DEPTH == 0) {  // all rows of a step belong to one use
      const bf16* x = uses.x[d >> shift] + (u64)(d & within) * x_row + x_first;
      const bf16* dy = uses.dy[d >> shift] + (u64)(d & within) * dy_row + dy_first;
      fill_lines<T, GRAIN, T::ROWS>(left, rows, m - row0, [&](u32 row) { return x + row * x_row; });
      fill_lines<T, GRAIN, T::COLUMNS>(right, rows, n - column0, [&](u32 row) { return dy + row * dy_row; });
    } else {
      fill_lines<T, GRAIN, T::ROWS>(left, rows, m - row0, [&](u32 row) {
        u32 at = min(d + row, depth - 1);  // never beyond the last use
        return uses.x[at >> shift] + (u64)(at & within) * x_row + x_first;
      });
      fill_lines<T, GRAIN, T::COLUMNS>(right, rows, n - column0, [&](u32 row) {
        u32 at = min(d + row, depth - 1);
        return uses.dy[at >> shift] + (u64)(at & within) * dy_row + dy_first;
      });
    }
    d += T::TILE_DEPTH;
  };
  Sums<T> sums = {};
  multiply_tiles<T, false, false>(sums, shared, steps, load);
  hand_out<T>(sums, shared, [&](u32 row, u32 column, float(&found)[4][4]) {
    u32 j = column0 + column, r = row0 + row;
    if (j >= n || r >= m) return;
    u64 at = parts > 1 ? (((u64)part * blocks + block) * m + r) * n + j : (u64)block * c_block + (u64)r * n + j;
    store_rows(c, at, n, m - r, found, nullptr, nullptr, n - j, flags);
  });
}

// From large products, with many threads, to few rows, whose depth the warps split.
typedef Tile<256, 128, 32, 4, 2, 1, 4> Huge;
typedef Tile<128, 128, 32, 2, 2, 1, 4> Large;
typedef Tile<64, 64, 64, 2, 2, 1, 3> Middle;
typedef Tile<16, 64, 128, 1, 1, 4, 3> Flat;
#ifdef WARPGROUPS
typedef GroupTile<256, 128, 64, 2, 4> Group;
typedef GroupTile<128, 128, 64, 1, 3, 0> Pair;
#endif

#define GEMM(name, tile, each, transposed, grain)                \
  KERNEL __launch_bounds__(tile::THREADS, each) name(GEMM_ARGS) { \
    wait_for_previous();                                          \
    gemm_block<tile, transposed, grain>(GEMM_VALUES);             \
  }                                                              \
  EXPORT(name)
#ifdef PART_gemm
GEMM(gemm_huge, Huge, 1, false, 8)
GEMM(gemm_large, Large, 2, false, 8)
GEMM(gemm_middle, Middle, 4, false, 8)
GEMM(gemm_flat, Flat, 3, false, 8)
GEMM(gemm_odd, Middle, 3, false, 1)
#ifdef WARPGROUPS
GEMM(gemm_group, Group, 1, false, 8)
GEMM(gemm_pair, Pair, 2, false, 8)
#endif
#endif
#ifdef PART_gemm_transposed
GEMM(gemm_huge_transposed, Huge, 1, true, 8)
GEMM(gemm_large_transposed, Large, 2, true, 8)
GEMM(gemm_middle_transposed, Middle, 4, true, 8)
GEMM(gemm_flat_transposed, Flat, 3, true, 8)
GEMM(gemm_odd_transposed, Middle, 3, true, 1)
#ifdef WARPGROUPS
GEMM(gemm_group_transposed, Group, 1, true, 8)
GEMM(gemm_pair_transposed, Pair, 2, true, 8)
#endif
#endif

#define WEIGHT_GRAD(name, tile, each, grain)                            \
  KERNEL __launch_bounds__(tile::THREADS, each) name(WEIGHT_GRAD_ARGS) { \
    wait_for_previous();                                                 \
    weight_grad_block<tile, grain>(WEIGHT_GRAD_VALUES);                  \
  }                                                                     \
  EXPORT(name)
#ifdef PART_gemm_weight_grad
WEIGHT_GRAD(weight_grad_huge, Huge, 1, 8)
WEIGHT_GRAD(weight_grad_large, Large, 2, 8)
WEIGHT_GRAD(weight_grad_middle, Middle, 4, 8)
WEIGHT_GRAD(weight_grad_odd, Middle, 3, 1)
#ifdef WARPGROUPS
WEIGHT_GRAD(weight_grad_group, Group, 1, 8)
WEIGHT_GRAD(weight_grad_pair, Pair, 2, 8)
#endif
#endif
#ifdef PART_gemm

// Adds up parts [count, blocks, m, n] and writes the sums to `c` as the kernels above would; a thread takes up to four
// numbers of a row.
KERNEL sum_parts(const float* parts, u32 count, u32 m, u32 n, u32 blocks, const float* bias, const bf16* add, void* c,
                 u32 c_row, u32 c_block, u32 flags) {
  wait_for_previous();
  u32 groups = (n + 3) / 4;
  u64 i = global_thread(), all = (u64)blocks * m * n;
  if (i >= (u64)blocks * m * groups) return;
  u32 j = i % groups * 4, r = i / groups % m, block = i / groups / m;
  const float* from = parts + ((u64)block * m + r) * n + j;
  float sums[4] = {};
  if (flags & FOURS) {
#pragma unroll 4
    for (u32 part = 0; part < count; part++) {
      float4 four = four_of(from + part * all);
      sums[0] += four.x, sums[1] += four.y, sums[2] += four.z, sums[3] += four.w;
    }
  } else {
    for (u32 part = 0; part < count; part++)
      for (u32 q = 0; q < 4 && j + q < n; q++) sums[q] += from[part * all + q];
  }
  u64 at = (u64)block * c_block + (u64)r * c_row + j;
  add_four(sums, bias, block * c_block + j, add, at, n - j, flags);
  store_four(c, at, sums, n - j, flags);
}
EXPORT(sum_parts)

// Converts weights for products: rows of `n` numbers to bfloat16, padded with zeros to `padded` numbers.
KERNEL halve(const float* x, u32 rows, u32 n, u32 padded, bf16* y) {
  wait_for_previous();
  u64 i = global_thread(), row = i / (padded / 2);
  if (row >= rows) return;
  u32 j = i % (padded / 2) * 2;
  const float* from = x + row * n + j;
  ((u32*)y)[i] = bf16_pair(j < n ? from[0] : 0.0f, j + 1 < n ? from[1] : 0.0f);
}
EXPORT(halve)

#endif
#else

#define TILE_COLUMNS 64u

#ifdef PART_gemm

// c [m, n] = a [m, k] b [k, n] + bias [n] + add [m, n] (+ c), for `gridDim.z` blocks that are `a_block`, .. apart.
// `bias` and `add` may be null. The rows of `c` and `add` are `c_row` apart.
KERNEL gemm(const float* a, u32 a_row, u32 a_column, u32 a_block, const float* b, u32 b_row, u32 b_column, u32 b_block,
            float* c, u32 c_row, u32 c_block, const float* bias, const float* add, u32 m, u32 n, u32 k, u32 accumulate) {
  wait_for_previous();
  u32 block = blockIdx.z, row0 = blockIdx.y * TILE_ROWS, column0 = blockIdx.x * TILE_COLUMNS;
  a += (u64)block * a_block;
  b += (u64)block * b_block;
  auto left = [&](u32 i, u32 d) { return row0 + i < m ? a[(u64)(row0 + i) * a_row + (u64)d * a_column] : 0.0f; };
  auto right = [&](u32 d, u32 j) { return column0 + j < n ? b[(u64)d * b_row + (u64)(column0 + j) * b_column] : 0.0f; };
  product<TILE_COLUMNS>(0, k, a_column != 1, b_row != 1, left, right, [&](u32 i, u32 j, float sum) {
    u32 row = row0 + i, column = column0 + j;
    if (row >= m || column >= n) return;
    u64 at = (u64)row * c_row + (u64)block * c_block + column;
    if (bias) sum += bias[block * c_block + column];
    if (add) sum += add[at];
    c[at] = accumulate ? c[at] + sum : sum;
  });
}
EXPORT(gemm)

#endif
#ifdef PART_gemm_weight_grad

// c [m, n] = (c +) the sum over all uses of xᵀ dy, for `gridDim.z` blocks: `depth` rows in all.
KERNEL weight_grad(const __grid_constant__ Uses uses, u32 shift, u32 depth, u32 x_row, u32 x_block, u32 dy_row, u32 dy_block,
                   float* c, u32 c_block, u32 m, u32 n, u32 accumulate) {
  wait_for_previous();
  u32 block = blockIdx.z, row0 = blockIdx.y * TILE_ROWS, column0 = blockIdx.x * TILE_COLUMNS, within = (1u << shift) - 1;
  auto left = [&](u32 i, u32 d) {
    return row0 + i < m ? uses.x[d >> shift][(u64)(d & within) * x_row + (u64)block * x_block + row0 + i] : 0.0f;
  };
  auto right = [&](u32 d, u32 j) {
    return column0 + j < n ? uses.dy[d >> shift][(u64)(d & within) * dy_row + (u64)block * dy_block + column0 + j] : 0.0f;
  };
  product<TILE_COLUMNS>(0, depth, true, true, left, right, [&](u32 i, u32 j, float sum) {
    u32 row = row0 + i, column = column0 + j;
    if (row >= m || column >= n) return;
    u64 at = (u64)block * c_block + (u64)row * n + column;
    c[at] = accumulate ? c[at] + sum : sum;
  });
}
EXPORT(weight_grad)

#endif
#endif
#ifdef PART_gemm

// For each column the sum over a slice of the rows: out [slices, n]. The rows [rows, n] lie in several places, each
// holding `1 << shift`. Of a block's 256 threads `lanes`, a power of two, take neighbouring columns, four each if WIDE,
// else one; the others take other rows, and sums of the same columns are added at the end.
template <class X, bool WIDE>
__device__ __forceinline__ void column_sums_block(const Places& places, u32 shift, u32 rows, u32 n, u32 slice, u32 lanes,
                                                  float* out) {
  __shared__ float4 sums[256];
  u32 column = (blockIdx.x * lanes + threadIdx.x % lanes) * (WIDE ? 4 : 1), lines = 256 / lanes, within = (1u << shift) - 1;
  u32 first = blockIdx.y * slice, last = min(first + slice, rows);
  float4 sum{0.0f, 0.0f, 0.0f, 0.0f};
  if (column < n) {
#pragma unroll 4
    for (u32 row = first + threadIdx.x / lanes; row < last; row += lines) {
      const X* at = (const X*)places.x[row >> shift] + (u64)(row & within) * n + column;
      if (WIDE) {
        float4 four = four_of(at);
        sum.x += four.x, sum.y += four.y, sum.z += four.z, sum.w += four.w;
      } else {
        sum.x += number(*at);
      }
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= lanes || column >= n) return;
  for (u32 line = 1; line < lines; line++) {
    float4 four = sums[line * lanes + threadIdx.x];
    sum.x += four.x, sum.y += four.y, sum.z += four.z, sum.w += four.w;
  }
  float* to = out + (u64)blockIdx.y * n + column;
  if (WIDE) set_four(to, sum.x, sum.y, sum.z, sum.w);
  else *to = sum.x;
}

#define COLUMN_SUMS(name, type, wide)                                                                                \
  KERNEL name(const __grid_constant__ Places places, u32 shift, u32 rows, u32 n, u32 slice, u32 lanes, float* out) { \
    wait_for_previous();                                                                                             \
    column_sums_block<type, wide>(places, shift, rows, n, slice, lanes, out);                                        \
  }                                                                                                                  \
  EXPORT(name)
COLUMN_SUMS(column_sums, float, false)
COLUMN_SUMS(column_sums_wide, float, true)
COLUMN_SUMS(column_sums_act, act, false)
COLUMN_SUMS(column_sums_act_wide, act, true)

#endif
