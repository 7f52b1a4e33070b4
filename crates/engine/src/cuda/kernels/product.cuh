// Tiles of matrix products, whatever their factors come from: on the ordinary units in float32, or on tensor cores with
// factors rounded to bfloat16 and sums in float32.

#define TILE_ROWS 64u
#define DEPTH 32u  // of the product, held in shared memory at a time

// c [16, 8] += a [16, 16] b [16, 8] by a warp, spread over its registers as PTX says (mma.m16n8k16): with
// g = lane / 4 and t = lane % 4, a holds the pairs (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) of rows and columns,
// b the pairs of rows 2t and 2t + 8 in column g, c the numbers (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ __forceinline__ void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
  emulator::mma(c, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Computes a tile [TILE_ROWS, COLUMNS] by a block of 256 threads: the sums over d from `start` to `end` of
// `left(i, d) right(d, j)`, handed to `store(i, j, sum)`. The factories are asked for zeros nowhere: they must answer with
// them outside of their matrices. Where neighbouring threads read neighbouring numbers is said by `left_by_row` and
// `right_by_row`: true where numbers of one d lie together.
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
        u32 b[2] = {b_row[p + t], b_row[p + t + 4]};
        mma(sums[tile], a, b);
      }
    }
    __syncthreads();
  }
  for (u32 tile = 0; tile < TILES; tile++)
    for (u32 r = 0; r < 4; r++) store(row + g + r / 2 * 8, column + 8 * tile + 2 * t + r % 2, sums[tile][r]);
}

template <bool BF16, u32 COLUMNS, class Left, class Right, class Store>
__device__ __forceinline__ void product(u32 start, u32 end, bool left_by_row, bool right_by_row, Left left, Right right,
                                        Store store) {
  if constexpr (BF16) product_bf16<COLUMNS>(start, end, left_by_row, right_by_row, left, right, store);
  else product_f32<COLUMNS>(start, end, left_by_row, right_by_row, left, right, store);
}
