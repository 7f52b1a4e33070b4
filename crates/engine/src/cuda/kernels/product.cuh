// Tiles of matrix products, wherever their factors come from: on CUDA cores in float32, or on tensor cores with factors
// in bfloat16 and sums in float32. `left` is [rows, depth], `right` is [depth, columns].

#define TILE_ROWS 64u
#define DEPTH 32u  // of a simple product, held in shared memory at a time

// c [16, 8] += a [16, 16] b [16, 8] by a warp, spread over its registers as PTX says (mma.m16n8k16): with
// g = lane / 4 and t = lane % 4, a holds the pairs (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) of rows and columns,
// b the pairs of rows 2t and 2t + 8 in column g, c the numbers (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ __forceinline__ void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#ifdef EMULATED
  u32 b[2] = {b0, b1};
  emulator::mma(c, a, b);
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// ---- Simple products: factors are functions, asked for one number at a time -------------------------------------------

// Computes a tile [TILE_ROWS, COLUMNS] by a block of 256 threads: the sums of `left(i, d) right(d, j)` over d from
// `start` to `end`, passed to `store(i, j, sum)`. The factors are never called with a d from `end` on, but with rows
// and columns outside of their matrices, where they must be zero. `left_by_row` and `right_by_row` say whether numbers
// of one d are neighbours in memory, so that neighbouring threads read neighbouring numbers.
template <u32 COLUMNS, class Left, class Right, class Store>
__device__ __forceinline__ void product_f32(u32 start, u32 end, bool left_by_row, bool right_by_row, Left left, Right right,
                                            Store store) {
  const u32 EACH = COLUMNS / 16;
  __shared__ float as[DEPTH][TILE_ROWS + 1];
  __shared__ float bs[DEPTH][COLUMNS + 1];
  u32 ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  float sums[4][EACH] = {};
  for (u32 d0 = start; d0 < end; d0 += DEPTH) {
    for (u32 at = threadIdx.x; at < TILE_ROWS * DEPTH; at += 256) {
      u32 d = left_by_row ? at / TILE_ROWS : at % DEPTH, i = left_by_row ? at % TILE_ROWS : at / DEPTH;
      as[d][i] = d0 + d < end ? left(i, d0 + d) : 0.0f;
    }
    for (u32 at = threadIdx.x; at < COLUMNS * DEPTH; at += 256) {
      u32 d = right_by_row ? at / COLUMNS : at % DEPTH, j = right_by_row ? at % COLUMNS : at / DEPTH;
      bs[d][j] = d0 + d < end ? right(d0 + d, j) : 0.0f;
    }
    __syncthreads();
    float part[4][EACH] = {};  // added up tile by tile: a long sum in one go rounds more
    for (u32 d = 0; d < DEPTH; d++)
      for (u32 i = 0; i < 4; i++)
        for (u32 j = 0; j < EACH; j++) part[i][j] += as[d][ty + 16 * i] * bs[d][tx + 16 * j];
    for (u32 i = 0; i < 4; i++)
      for (u32 j = 0; j < EACH; j++) sums[i][j] += part[i][j];
    __syncthreads();
  }
  for (u32 i = 0; i < 4; i++)
    for (u32 j = 0; j < EACH; j++) store(ty + 16 * i, tx + 16 * j, sums[i][j]);
}

// The same on tensor cores: of the eight warps each takes 16 rows and half of the columns.
template <u32 COLUMNS, class Left, class Right, class Store>
__device__ __forceinline__ void product_bf16(u32 start, u32 end, bool left_by_row, bool right_by_row, Left left, Right right,
                                             Store store) {
  const u32 PAIRS = DEPTH / 2, TILES = COLUMNS / 16;
  __shared__ u32 as[TILE_ROWS][PAIRS + 1];  // pairs of neighbours in d
  __shared__ u32 bs[COLUMNS][PAIRS + 1];
  u32 warp = threadIdx.x / WARP, g = lane_of_warp() / 4, t = lane_of_warp() % 4;
  u32 row = warp % 4 * 16, column = warp / 4 * (COLUMNS / 2);
  float sums[TILES][4] = {};
  for (u32 d0 = start; d0 < end; d0 += DEPTH) {
    for (u32 at = threadIdx.x; at < TILE_ROWS * PAIRS; at += 256) {
      u32 p = left_by_row ? at / TILE_ROWS : at % PAIRS, i = left_by_row ? at % TILE_ROWS : at / PAIRS, d = d0 + 2 * p;
      as[i][p] = bf16_pair(d < end ? left(i, d) : 0.0f, d + 1 < end ? left(i, d + 1) : 0.0f);
    }
    for (u32 at = threadIdx.x; at < COLUMNS * PAIRS; at += 256) {
      u32 p = right_by_row ? at / COLUMNS : at % PAIRS, j = right_by_row ? at % COLUMNS : at / PAIRS, d = d0 + 2 * p;
      bs[j][p] = bf16_pair(d < end ? right(d, j) : 0.0f, d + 1 < end ? right(d + 1, j) : 0.0f);
    }
    __syncthreads();
    for (u32 p = 0; p < PAIRS; p += 8) {
      u32 a[4] = {as[row + g][p + t], as[row + g + 8][p + t], as[row + g][p + t + 4], as[row + g + 8][p + t + 4]};
      for (u32 tile = 0; tile < TILES; tile++) {
        const u32* b_row = bs[column + 8 * tile + g];
        mma(sums[tile], a, b_row[p + t], b_row[p + t + 4]);
      }
    }
    __syncthreads();
  }
  for (u32 tile = 0; tile < TILES; tile++)
    for (u32 r = 0; r < 4; r++) store(row + g + r / 2 * 8, column + 8 * tile + 2 * t + r % 2, sums[tile][r]);
}

template <u32 COLUMNS, class Left, class Right, class Store>
__device__ __forceinline__ void product(u32 start, u32 end, bool left_by_row, bool right_by_row, Left left, Right right,
                                        Store store) {
#ifdef ACT_BF16
  product_bf16<COLUMNS>(start, end, left_by_row, right_by_row, left, right, store);
#else
  product_f32<COLUMNS>(start, end, left_by_row, right_by_row, left, right, store);
#endif
}

// ---- Staged products: factors in bfloat16 travel through a ring of stages in shared memory -----------------------------

// How a thread block computes a tile [ROWS, COLUMNS] of a product: in pipeline stages of TILE_DEPTH, of which STAGES
// are in shared memory, by warps that split the rows, the columns, and the depth of each stage.
template <u32 R, u32 C, u32 D, u32 ALONG_ROWS, u32 ALONG_COLUMNS, u32 ALONG_DEPTH, u32 S>
struct Tile {
  static constexpr u32 ROWS = R, COLUMNS = C, TILE_DEPTH = D, STAGES = S;
  static constexpr u32 WARPS_R = ALONG_ROWS, WARPS_C = ALONG_COLUMNS, WARPS_D = ALONG_DEPTH;
  static constexpr u32 PLANE = WARPS_R * WARPS_C, THREADS = WARP * PLANE * WARPS_D;
  static constexpr u32 WARP_ROWS = R / ALONG_ROWS, WARP_COLUMNS = C / ALONG_COLUMNS;
  static constexpr u32 ACROSS = WARP_ROWS / 16, DOWN = WARP_COLUMNS / 8;  // products of tensor cores for each warp
  static constexpr u32 LEFT = 2 * R * D, STAGE = LEFT + 2 * C * D;        // bytes
  static constexpr bool BY_WARPGROUPS = false;
  static constexpr u32 WIDTH = WARP_COLUMNS % 32 == 0 ? 32 : 16;  // columns that are handed out at once
  // The first of a warp's `i`-th 16 rows, and its first column.
  static __device__ __forceinline__ u32 row_of(u32 warp, u32 i) { return warp % WARPS_R * WARP_ROWS + 16 * i; }
  static __device__ __forceinline__ u32 column_of(u32 warp) { return warp / WARPS_R % WARPS_C * WARP_COLUMNS; }
};
template <class T> using Sums = float[T::ACROSS][T::DOWN][4];

// Tiles in shared memory are rows of CHUNKS chunks of 16 bytes, along the depth or across it, as in the factor's
// memory. Chunks are swizzled within rows so that the same chunk of eight rows, which ldmatrix reads at once, is in
// different banks.
template <class T, u32 ROWS, u32 CHUNKS>
__device__ __forceinline__ u32 place(u32 row, u32 chunk) {
  if (T::BY_WARPGROUPS) return chunk / 8 * (128 * ROWS) + 128 * row + 16 * (chunk % 8 ^ row % 8);  // see wgmma.cuh
  const u32 POWER = CHUNKS & (~CHUNKS + 1), SWAP = POWER < 8 ? POWER : 8;  // banks repeat after 8 / SWAP rows
  return 16 * (row * CHUNKS + (chunk ^ (row / (8 / SWAP) % SWAP)));
}

// The address of numbers of a factor; if they are not `there`, zeros take their place.
struct Spot {
  const bf16* at;
  bool there;
};

// Starts copying 16 or 8 bytes to shared memory.
template <u32 BYTES>
__device__ __forceinline__ void copy_later(char* to, Spot from) {
#ifdef EMULATED
  emulator::copy_later(to, from.there ? from.at : nullptr, BYTES);
#else
  u32 address = (u32)__cvta_generic_to_shared(to), read = from.there ? BYTES : 0;
  if (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from.at), "r"(read) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(address), "l"(from.at), "r"(read) : "memory");
#endif
}
// Ends a group of copies.
__device__ __forceinline__ void end_group() {
#ifdef EMULATED
  emulator::end_group();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits for all groups of this thread but the last BUT.
template <u32 BUT>
__device__ __forceinline__ void wait_for_groups() {
#ifdef EMULATED
  emulator::wait_for_groups(BUT);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(BUT) : "memory");
#endif
}

// Fills the tile of a factor, which has ROWS rows of chunks. `source(i, row, column)` is the spot of the GRAIN numbers
// from there on: 8 or 4 are copied asynchronously and must be aligned to their size; with 1, nothing need be aligned.
// `i` counts the chunks of this thread and is a constant after unrolling.
template <class T, u32 GRAIN, u32 ROWS, u32 CHUNKS, class Source>
__device__ __forceinline__ void fill_tile(char* tile, Source source) {
  const u32 THREADS = T::THREADS, EACH = (ROWS * CHUNKS + THREADS - 1) / THREADS;
#pragma unroll
  for (u32 i = 0; i < EACH; i++) {
    u32 row = (i * THREADS + threadIdx.x) / CHUNKS, chunk = (i * THREADS + threadIdx.x) % CHUNKS;
    if (THREADS % CHUNKS == 0) row = threadIdx.x / CHUNKS + i * (THREADS / CHUNKS), chunk = threadIdx.x % CHUNKS;
    if (ROWS * CHUNKS % THREADS != 0 && i * THREADS + threadIdx.x >= ROWS * CHUNKS) break;
    char* to = tile + place<T, ROWS, CHUNKS>(row, chunk);
    if (GRAIN == 8) {
      copy_later<16>(to, source(i, row, 8 * chunk));
    } else if (GRAIN == 4) {
      copy_later<8>(to, source(i, row, 8 * chunk));
      copy_later<8>(to + 8, source(i, row, 8 * chunk + 4));
    } else {
      u32 pairs[4];
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        Spot low = source(i, row, 8 * chunk + 2 * j), high = source(i, row, 8 * chunk + 2 * j + 1);
        pairs[j] = (low.there ? (u32)low.at->bits : 0u) | (high.there ? (u32)high.at->bits << 16 : 0u);
      }
      *(uint4*)to = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
    }
  }
}

// Loads a warp's fragment of 16 rows of the left factor (or columns of the right one) from `first` on and 16 of the
// depth from `depth` on: for the left the registers of one `mma`, for the right those of two.
template <class T, bool LEFT, bool ALONG_DEPTH, u32 ROWS, u32 CHUNKS>
__device__ __forceinline__ void fragment(u32 (&r)[4], const char* tile, u32 first, u32 depth) {
  u32 matrix = lane_of_warp() / 8, line = lane_of_warp() % 8;
  u32 across = LEFT ? matrix % 2 : matrix / 2, down = LEFT ? matrix / 2 : matrix % 2;  // the order that `mma` takes
  const char* at = tile + (ALONG_DEPTH ? place<T, ROWS, CHUNKS>(first + 8 * across + line, depth / 8 + down)
                                       : place<T, ROWS, CHUNKS>(depth + 8 * down + line, first / 8 + across));
#ifdef EMULATED
  emulator::ldmatrix(r, at, !ALONG_DEPTH);
#else
  u32 address = (u32)__cvta_generic_to_shared(at);
  if (ALONG_DEPTH)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
#endif
}

// A warp's products of one stage. Fragments of the next products are loaded while the current ones are computed.
template <class T, bool LEFT_ALONG, bool RIGHT_ALONG>
__device__ __forceinline__ void multiply_stage(Sums<T>& sums, const char* stage) {
  const u32 STEPS = T::TILE_DEPTH / 16 / T::WARPS_D;
  const u32 LEFT_LINES = LEFT_ALONG ? T::ROWS : T::TILE_DEPTH, LEFT_CHUNKS = (LEFT_ALONG ? T::TILE_DEPTH : T::ROWS) / 8;
  const u32 RIGHT_LINES = RIGHT_ALONG ? T::COLUMNS : T::TILE_DEPTH, RIGHT_CHUNKS = (RIGHT_ALONG ? T::TILE_DEPTH : T::COLUMNS) / 8;
  u32 warp = threadIdx.x / WARP, depth = warp / T::PLANE * 16, column = T::column_of(warp);
  u32 left[2][T::ACROSS][4], right[2][T::DOWN / 2][4];
  auto load = [&](u32 step) {
    u32 d = depth + 16 * T::WARPS_D * step;
#pragma unroll
    for (u32 i = 0; i < T::ACROSS; i++)
      fragment<T, true, LEFT_ALONG, LEFT_LINES, LEFT_CHUNKS>(left[step % 2][i], stage, T::row_of(warp, i), d);
#pragma unroll
    for (u32 j = 0; j < T::DOWN / 2; j++)
      fragment<T, false, RIGHT_ALONG, RIGHT_LINES, RIGHT_CHUNKS>(right[step % 2][j], stage + T::LEFT, column + 16 * j, d);
  };
  load(0);
#pragma unroll
  for (u32 step = 0; step < STEPS; step++) {
    if (step + 1 < STEPS) load(step + 1);
#pragma unroll
    for (u32 i = 0; i < T::ACROSS; i++)
#pragma unroll
      for (u32 j = 0; j < T::DOWN; j++) {
        const u32(&pair)[4] = right[step % 2][j / 2];
        mma(sums[i][j], left[step % 2][i], pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
      }
  }
}

// `multiply_tiles` for tiles whose warps multiply independently.
template <class T, bool LEFT_ALONG, bool RIGHT_ALONG, class Load>
__device__ __forceinline__ void multiply_by_warps(Sums<T>& sums, char* shared, u32 steps, Load load) {
  auto fill_stage = [&](u32 stage) { load(shared + stage * T::STAGE, shared + stage * T::STAGE + T::LEFT); };
  for (u32 step = 0; step < T::STAGES - 1; step++) {
    if (step < steps) fill_stage(step);
    end_group();
  }
  u32 full = 0, empty = T::STAGES - 1;
  for (u32 step = 0; step < steps; step++) {
    wait_for_groups<T::STAGES - 2>();
    __syncthreads();  // all copies have arrived, and no thread still reads the stage that is filled next
    if (step + T::STAGES - 1 < steps) fill_stage(empty);
    end_group();
    multiply_stage<T, LEFT_ALONG, RIGHT_ALONG>(sums, shared + full * T::STAGE);
    full = full + 1 == T::STAGES ? 0 : full + 1;
    empty = empty + 1 == T::STAGES ? 0 : empty + 1;
  }
  wait_for_groups<0>();
  __syncthreads();  // the stages may be used for something else
}

// The same for tiles that warpgroups compute (wgmma.cuh).
template <class T, bool LEFT_ALONG, bool RIGHT_ALONG, class Load>
__device__ __forceinline__ void multiply_by_warpgroups(Sums<T>& sums, char* shared, u32 steps, Load load);

// Adds a product of depth `steps` times TILE_DEPTH to the sums of a tile. Each call of `load(left, right)` fills the
// tiles of both factors for the next step. A factor is `ALONG` if it is contiguous along the depth.
template <class T, bool LEFT_ALONG, bool RIGHT_ALONG, class Load>
__device__ __forceinline__ void multiply_tiles(Sums<T>& sums, char* shared, u32 steps, Load load) {
  if constexpr (T::BY_WARPGROUPS) {
    multiply_by_warpgroups<T, LEFT_ALONG, RIGHT_ALONG>(sums, shared, steps, load);
  } else {
    multiply_by_warps<T, LEFT_ALONG, RIGHT_ALONG>(sums, shared, steps, load);
  }
}

// The epilogue: passes the sums to `store(row, column, sums)`, four rows of four numbers from there on at a time,
// rearranged in shared memory so that neighbouring threads have neighbouring numbers. If warps split the depth, the
// first of them adds up the sums of all, in order.
template <class T, class Store>
__device__ __forceinline__ void hand_out(Sums<T>& sums, char* shared, Store store) {
  u32 warp = threadIdx.x / WARP, lane = lane_of_warp(), plane = warp % T::PLANE;
  const u32 COUNT = T::ACROSS * T::DOWN * 4;
  float* others = (float*)shared;
  auto sum = [&](u32 i) -> float& { return sums[i / 4 / T::DOWN][i / 4 % T::DOWN][i % 4]; };
  if (T::WARPS_D > 1) {
    if (warp >= T::PLANE)
#pragma unroll
      for (u32 i = 0; i < COUNT; i++) others[((warp - T::PLANE) * COUNT + i) * WARP + lane] = sum(i);
    __syncthreads();
    if (warp >= T::PLANE) return;
    for (u32 w = plane; w < (T::WARPS_D - 1) * T::PLANE; w += T::PLANE)
#pragma unroll
      for (u32 i = 0; i < COUNT; i++) sum(i) += others[(w * COUNT + i) * WARP + lane];
  }
  const u32 WIDTH = T::WIDTH, PITCH = WIDTH + 8;  // without bank conflicts
  const u32 LANES = WIDTH / 4, GROUPS = WARP / LANES;  // that take four rows together
  float* stage = others + (T::WARPS_D - 1) * T::PLANE * COUNT * WARP + warp * 16 * PITCH;
#pragma unroll
  for (u32 i = 0; i < T::ACROSS; i++)
#pragma unroll
    for (u32 part = 0; part < T::WARP_COLUMNS / WIDTH; part++) {
#pragma unroll
      for (u32 j = 0; j < WIDTH / 8; j++) {
        const float(&s)[4] = sums[i][part * (WIDTH / 8) + j];
        float* to = stage + lane / 4 * PITCH + 8 * j + lane % 4 * 2;
        *(float2*)to = float2{s[0], s[1]};
        *(float2*)(to + 8 * PITCH) = float2{s[2], s[3]};
      }
      __syncwarp();
#pragma unroll
      for (u32 first = 0; first < 16; first += 4 * GROUPS) {
        u32 r = first + lane / LANES * 4, c = lane % LANES * 4;
        if (lane >= GROUPS * LANES || r >= 16) continue;
        float values[4][4];
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
          float4 four = *(const float4*)(stage + (r + k) * PITCH + c);
          values[k][0] = four.x, values[k][1] = four.y, values[k][2] = four.z, values[k][3] = four.w;
        }
        store(T::row_of(warp, i) + r, T::column_of(warp) + part * WIDTH + c, values);
      }
      __syncwarp();
    }
}
