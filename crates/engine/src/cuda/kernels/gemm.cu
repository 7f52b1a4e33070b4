// Matrix products in float32 with any strides: linear and block-linear layers, and their gradients.

#define TILE 64u   // rows and columns of the output for each block of 256 threads
#define DEPTH 16u  // of the product, held in shared memory at a time
#define EACH 4u    // rows and columns for each thread

struct Matrix {
  const float* at;
  u32 row, column;  // strides
};

// Element (i, j) of a tile, zero outside of the matrix.
__device__ __forceinline__ float element(const float* x, u32 row_stride, u32 column_stride, u32 i, u32 j, u32 rows, u32 columns) {
  return i < rows && j < columns ? x[(u64)i * row_stride + (u64)j * column_stride] : 0.0f;
}

// c [m, n] = a [m, k] b [k, n] + bias [n] + add [m, n] (+ c), for `gridDim.z` blocks that are `a_block`, .. apart.
// `bias` and `add` may be null. The rows of `c` and `add` are `c_row` apart.
KERNEL gemm(const float* a, u32 a_row, u32 a_column, u32 a_block, const float* b, u32 b_row, u32 b_column, u32 b_block,
            float* c, u32 c_row, u32 c_block, const float* bias, const float* add, u32 m, u32 n, u32 k, u32 accumulate) {
  __shared__ float as[DEPTH][TILE + 1];
  __shared__ float bs[DEPTH][TILE + 1];
  u32 block = blockIdx.z, row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
  a += (u64)block * a_block;
  b += (u64)block * b_block;
  u32 ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  float sums[EACH][EACH] = {};
  for (u32 k0 = 0; k0 < k; k0 += DEPTH) {
    for (u32 i = threadIdx.x; i < TILE * DEPTH; i += 256) {
      // Neighbouring threads read neighbouring numbers, whichever way the matrix lies.
      u32 inner = a_column == 1 ? i % DEPTH : i / TILE, outer = a_column == 1 ? i / DEPTH : i % TILE;
      as[inner][outer] = element(a, a_row, a_column, row0 + outer, k0 + inner, m, k);
      inner = b_row == 1 ? i % DEPTH : i / TILE, outer = b_row == 1 ? i / DEPTH : i % TILE;
      bs[inner][outer] = element(b, b_row, b_column, k0 + inner, column0 + outer, k, n);
    }
    __syncthreads();
    float part[EACH][EACH] = {};  // added up tile by tile: a long sum in one go rounds more
    for (u32 d = 0; d < DEPTH; d++)
      for (u32 i = 0; i < EACH; i++)
        for (u32 j = 0; j < EACH; j++) part[i][j] += as[d][ty + 16 * i] * bs[d][tx + 16 * j];
    for (u32 i = 0; i < EACH; i++)
      for (u32 j = 0; j < EACH; j++) sums[i][j] += part[i][j];
    __syncthreads();
  }
  for (u32 i = 0; i < EACH; i++)
    for (u32 j = 0; j < EACH; j++) {
      u32 row = row0 + ty + 16 * i, column = column0 + tx + 16 * j;
      if (row >= m || column >= n) continue;
      u64 at = (u64)row * c_row + (u64)block * c_block + column;
      float sum = sums[i][j];
      if (bias) sum += bias[block * c_block + column];
      if (add) sum += add[at];
      c[at] = accumulate ? c[at] + sum : sum;
    }
}
EXPORT(gemm)
