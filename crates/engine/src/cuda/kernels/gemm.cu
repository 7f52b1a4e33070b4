// Matrix products with any strides: linear and block-linear layers, and their gradients.

#define TILE_COLUMNS 64u

// c [m, n] = a [m, k] b [k, n] + bias [n] + add [m, n] (+ c), for `gridDim.z` blocks that are `a_block`, .. apart.
// `bias` and `add` may be null. The rows of `c` and `add` are `c_row` apart.
#define GEMM_ARGS                                                                                                   \
  const float *a, u32 a_row, u32 a_column, u32 a_block, const float *b, u32 b_row, u32 b_column, u32 b_block, float *c, \
      u32 c_row, u32 c_block, const float *bias, const float *add, u32 m, u32 n, u32 k, u32 accumulate
#define GEMM_VALUES \
  a, a_row, a_column, a_block, b, b_row, b_column, b_block, c, c_row, c_block, bias, add, m, n, k, accumulate

template <bool BF16>
__device__ __forceinline__ void gemm_block(GEMM_ARGS) {
  u32 block = blockIdx.z, row0 = blockIdx.y * TILE_ROWS, column0 = blockIdx.x * TILE_COLUMNS;
  a += (u64)block * a_block;
  b += (u64)block * b_block;
  auto left = [&](u32 i, u32 d) { return row0 + i < m ? a[(u64)(row0 + i) * a_row + (u64)d * a_column] : 0.0f; };
  auto right = [&](u32 d, u32 j) { return column0 + j < n ? b[(u64)d * b_row + (u64)(column0 + j) * b_column] : 0.0f; };
  product<BF16, TILE_COLUMNS>(0, k, a_column != 1, b_row != 1, left, right, [&](u32 i, u32 j, float sum) {
    u32 row = row0 + i, column = column0 + j;
    if (row >= m || column >= n) return;
    u64 at = (u64)row * c_row + (u64)block * c_block + column;
    if (bias) sum += bias[block * c_block + column];
    if (add) sum += add[at];
    c[at] = accumulate ? c[at] + sum : sum;
  });
}

KERNEL gemm(GEMM_ARGS) { gemm_block<false>(GEMM_VALUES); }
EXPORT(gemm)

KERNEL gemm_bf16(GEMM_ARGS) { gemm_block<true>(GEMM_VALUES); }
EXPORT(gemm_bf16)
