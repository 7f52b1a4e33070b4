// Convolutions with SAME padding as implicit matrix products, over images [n, height, width, stored channels]: a row of
// the product is a pixel, its depth the taps of the kernel and their channels, gathered on the way into shared memory.
// More channels may be stored than exist: the others are zero. The file is compiled in parts, in parallel: conv,
// conv_input_grad and conv_weight_grad.

// ---- Simple: any geometry, one number at a time -----------------------------------------------------------------------

#define CHANNELS 32u  // output channels for each block of threads; pixels, or rows of the weight, are TILE_ROWS

// `up` is 2 if the input is upsampled first: each pixel is repeated four times or, if `sparse`, put at odd rows and
// columns with zeros between. `h` and `w` are the input's sizes before that, `oh` and `ow` the output's. The input
// stores `cs` channels, the output `os`; the weight is [k, k, ci, co].
struct Geometry { u32 n, ci, cs, h, w, co, os, oh, ow, k, stride, up, sparse, top, left; };
#define GEOMETRY                                                                                                     \
  u32 n, u32 ci, u32 cs, u32 h, u32 w, u32 co, u32 os, u32 oh, u32 ow, u32 k, u32 stride, u32 up, u32 sparse, u32 top, \
      u32 left
#define GEOMETRY_VALUES Geometry{n, ci, cs, h, w, co, os, oh, ow, k, stride, up, sparse, top, left}

#if defined(PART_conv) && !defined(ACT_BF16)

// The input that output pixel `pixel` of all images multiplies by row `tap` [k, k, ci] of the weight.
__device__ __forceinline__ float seen(const float* x, const Geometry& g, u32 pixel, u32 tap) {
  if (pixel >= g.n * g.oh * g.ow || tap >= g.k * g.k * g.ci) return 0.0f;
  u32 column = pixel % g.ow, row = pixel / g.ow % g.oh, image = pixel / g.ow / g.oh;
  u32 c = tap % g.ci, b = tap / g.ci % g.k, a = tap / g.ci / g.k;
  // Positions before the image wrap around to values beyond its size.
  u32 y = row * g.stride + a - g.top, x0 = column * g.stride + b - g.left;
  if (y >= g.h * g.up || x0 >= g.w * g.up || (g.sparse && !(y % 2 == 1 && x0 % 2 == 1))) return 0.0f;
  return x[((u64)(image * g.h + y / g.up) * g.w + x0 / g.up) * g.cs + c];
}

// y [n, oh, ow, os] = x * weight + bias
KERNEL conv(const float* x, const float* weight, const float* bias, float* y, GEOMETRY) {
  wait_for_previous();
  Geometry g = GEOMETRY_VALUES;
  u32 pixel0 = blockIdx.x * TILE_ROWS, channel0 = blockIdx.y * CHANNELS;
  auto left_factor = [&](u32 i, u32 d) { return seen(x, g, pixel0 + i, d); };
  auto right_factor = [&](u32 d, u32 j) { return channel0 + j < co ? weight[(u64)d * co + channel0 + j] : 0.0f; };
  product<CHANNELS>(0, k * k * ci, false, true, left_factor, right_factor, [&](u32 i, u32 j, float sum) {
    u32 pixel = pixel0 + i, channel = channel0 + j;
    if (pixel >= n * oh * ow || channel >= os) return;
    y[(u64)pixel * os + channel] = channel < co ? sum + bias[channel] : 0.0f;
  });
}
EXPORT(conv)

// The weight's gradient from `slice` output pixels for each part of the grid's third axis: out [parts, k, k, ci, co].
KERNEL conv_weight_grad(const float* x, const float* dy, u32 slice, float* out, GEOMETRY) {
  wait_for_previous();
  Geometry g = GEOMETRY_VALUES;
  u32 row0 = blockIdx.x * TILE_ROWS, channel0 = blockIdx.y * CHANNELS, rows = k * k * ci, pixels = n * oh * ow;
  u32 first = blockIdx.z * slice, last = min(first + slice, pixels);
  auto left_factor = [&](u32 i, u32 d) { return seen(x, g, d, row0 + i); };
  auto right_factor = [&](u32 d, u32 j) { return channel0 + j < co ? dy[(u64)d * os + channel0 + j] : 0.0f; };
  product<CHANNELS>(first, last, true, true, left_factor, right_factor, [&](u32 i, u32 j, float sum) {
    u32 row = row0 + i, channel = channel0 + j;
    if (row < rows && channel < co) out[((u64)blockIdx.z * rows + row) * co + channel] = sum;
  });
}
EXPORT(conv_weight_grad)

#endif
#ifdef PART_conv

// dx [n, h, w, cs] from dy: every input pixel collects from the outputs that it contributed to.
KERNEL conv_input_grad(const act* dy, const float* weight, act* dx, GEOMETRY) {
  wait_for_previous();
  u32 pixel0 = blockIdx.x * TILE_ROWS, channel0 = blockIdx.y * CHANNELS;
  u32 places = sparse ? 1 : up * up;  // of a pixel in the upsampled image
  auto left_factor = [&](u32 i, u32 d) {
    u32 pixel = pixel0 + i;
    if (pixel >= n * h * w) return 0.0f;
    u32 o = d % co, b = d / co % k, a = d / co / k % k, place = d / co / k / k;
    u32 column = pixel % w * up + (sparse ? 1 : place % up), row = pixel / w % h * up + (sparse ? 1 : place / up);
    u32 y = row + top - a, x = column + left - b;  // in steps of the stride; wraps around before the first
    if (y % stride || x % stride || y / stride >= oh || x / stride >= ow) return 0.0f;
    return number(dy[((u64)(pixel / (h * w) * oh + y / stride) * ow + x / stride) * os + o]);
  };
  auto right_factor = [&](u32 d, u32 j) {
    u32 tap = d / co % (k * k);
    return channel0 + j < ci ? weight[((u64)tap * ci + channel0 + j) * co + d % co] : 0.0f;
  };
  product<CHANNELS>(0, places * k * k * co, false, false, left_factor, right_factor, [&](u32 i, u32 j, float sum) {
    u32 pixel = pixel0 + i, channel = channel0 + j;
    if (pixel < n * h * w && channel < cs) dx[(u64)pixel * cs + channel] = rounded<act>(sum);
  });
}
EXPORT(conv_input_grad)

#endif

// ---- Staged: what training spends its time in -------------------------------------------------------------------------
#ifdef ACT_BF16

// How rows and columns of a product become pixels and channels. POOLED: a 2x2 max pool follows. PHASES: the output has
// twice the height and width, and a pixel's columns are those of its four output pixels. Upsampling by two before a
// convolution is computed like that, at low resolution and with fewer taps, which are sums of the original ones
// (`fold_phases`).
enum Mode : u32 { PLAIN, POOLED, PHASES };

// Division of numbers below 2^31 by one that is known beforehand (cuda/tiles.rs, `Divider`).
struct Divider { u32 factor, shift; };
__device__ __forceinline__ u32 divided(u32 x, Divider by) { return __umulhi(2 * x, by.factor) >> by.shift; }

struct Pixel { u32 image, y, x; };

// The pixel of row `row` of a product: in the order of memory, or by the squares of four that a pool takes.
__device__ __forceinline__ Pixel pixel_of(u32 row, u32 h, u32 w, bool squares) {
  if (!squares) return Pixel{row / w / h, row / w % h, row % w};
  u32 square = row / 4, across = w / 2, down = h / 2;
  return Pixel{square / across / down, square / across % down * 2 + row / 2 % 2, square % across * 2 + row % 2};
}

// Forward: y = x [n, h, w, c] * weight [k, k, c, columns] + bias [channels], with `stored` channels per pixel. If
// POOLED, y is pooled, and `ties` has a bit for each of a square's four pixels: whether it has the maximum. GRAD, for
// the input's gradient: x is the output's gradient, taps are taken in reverse, and the weight, [k, k, columns, up up c]
// then, is transposed; if `up` is 2, x has twice the height and width, and a pixel's channels are those of its four
// pixels there. Rows of the weight are `w_row` apart. A tap has `tap` = up up c channels, of which GRAIN are gathered
// at a time.
#define CONV_ARGS                                                                                                       \
  const bf16 *x, const bf16 *weight, const float *bias, bf16 *y, u8 *ties, u32 n, u32 h, u32 w, u32 c, u32 c_factor,    \
      u32 c_shift, u32 tap, u32 tap_factor, u32 tap_shift, u32 k, u32 k_factor, u32 k_shift, u32 up, u32 stride, u32 top, \
      u32 left, u32 oh, u32 ow, u32 columns, u32 w_row, u32 channels, u32 stored, u32 mode
#define CONV_VALUES                                                                                                      \
  x, weight, bias, y, ties, n, h, w, c, c_factor, c_shift, tap, tap_factor, tap_shift, k, k_factor, k_shift, up, stride, \
      top, left, oh, ow, columns, w_row, channels, stored, mode

// Sets the first of four numbers to their maximum; returns a bit for each that was equal to it.
__device__ __forceinline__ u32 most_of(float& first, float second, float third, float fourth) {
  float most = fmaxf(fmaxf(first, second), fmaxf(third, fourth));
  u32 bits = (first == most ? 1u : 0u) | (second == most ? 2u : 0u) | (third == most ? 4u : 0u) | (fourth == most ? 8u : 0u);
  first = most;
  return bits;
}

template <class T, u32 GRAIN, bool GRAD>
__device__ __forceinline__ void conv_block(CONV_ARGS) {
  SHARED(char, shared);
  const u32 CHUNKS = T::TILE_DEPTH / 8, EACH = T::ROWS * CHUNKS / T::THREADS;
  static_assert(T::ROWS * CHUNKS % T::THREADS == 0 && T::THREADS % CHUNKS == 0, "threads share the chunks evenly");
  bool squares = !GRAD && mode == POOLED;
  // Tiles of the same rows follow each other, so that they find their pixels in the L2 cache.
  u32 across = (columns + T::COLUMNS - 1) / T::COLUMNS, row0 = blockIdx.x / across * T::ROWS;
  u32 rows = squares ? n * (oh / 2) * (ow / 2) * 4 : n * oh * ow, column0 = blockIdx.x % across * T::COLUMNS;
  Divider by_c{c_factor, c_shift}, by_tap{tap_factor, tap_shift}, by_k{k_factor, k_shift};
  u32 depth = k * k * tap, d = 0;
  // For each of this thread's pixels, the row, the column and the address of its first tap.
  u32 ys[EACH], xs[EACH];
  const bf16* origins[EACH];
#pragma unroll
  for (u32 i = 0; i < EACH; i++) {
    u32 row = row0 + (i * T::THREADS + threadIdx.x) / CHUNKS;
    Pixel p = pixel_of(row, oh, ow, squares);
    ys[i] = row < rows ? p.y * stride - top : 1u << 31, xs[i] = p.x * stride - left;
    origins[i] = x + ((long long)(int)(p.image * h + ys[i]) * up * up * w + (long long)(int)xs[i] * up) * c;
  }
  auto load = [&](char* left_tile, char* right_tile) {
    fill_tile<T, GRAIN, T::ROWS, CHUNKS>(left_tile, [&](u32 i, u32, u32 column) {
      u32 number = divided(d + column, by_tap), a = divided(number, by_k), b = number - a * k;
      u32 j = d + column - number * tap;  // the first channel, within this tap
      bool there = ys[i] + a < h && xs[i] + b < w && d + column < depth;
      if (!GRAD) return Spot{origins[i] + ((a * w + b) * c + j), there};
      u32 phase = divided(j, by_c), pixel = (up * a + phase / 2) * up * w + up * b + phase % 2;
      return Spot{origins[i] + (pixel * c + j - phase * c), there};
    });
    if (GRAD)
      fill_tile<T, GRAIN, T::COLUMNS, CHUNKS>(right_tile, [&](u32, u32 row, u32 column) {
        u32 number = divided(d + column, by_tap), j = d + column - number * tap;
        const bf16* at = weight + (u64)((k * k - 1 - number) * columns + column0 + row) * w_row + j;
        return Spot{at, d + column < depth && column0 + row < columns};
      });
    else
      fill_tile<T, 8, T::TILE_DEPTH, T::COLUMNS / 8>(right_tile, [&](u32, u32 row, u32 column) {
        return Spot{weight + (u64)(d + row) * w_row + column0 + column, d + row < depth && column0 + column < w_row};
      });
    d += T::TILE_DEPTH;
  };
  Sums<T> sums = {};
  multiply_tiles<T, true, GRAD>(sums, shared, (depth + T::TILE_DEPTH - 1) / T::TILE_DEPTH, load);

  hand_out<T>(sums, shared, [&](u32 row, u32 column, float(&found)[4][4]) {
    u32 j = column0 + column, first = row0 + row;
    if (j >= columns || first >= rows) return;
    // The index in y of a sum for pixel `first + i`, from the channel and the phase of its column.
    auto place_of = [&](u32 i, u32 channel, u32 phase) {
      u64 pixel = squares ? first / 4 : first + i;
      if (!GRAD && mode == PHASES) {
        Pixel p = pixel_of(first + i, oh, ow, false);
        pixel = ((u64)(p.image * oh + p.y) * 2 + phase / 2) * 2 * ow + 2 * p.x + phase % 2;
      }
      return pixel * stored + channel;
    };
    if (stored % 4 == 0) {  // four neighbouring columns belong to one pixel
      u32 channel = j % stored, phase = j / stored;
#pragma unroll
      for (u32 q = 0; q < 4; q++) {
        float add = bias && channel + q < channels ? bias[channel + q] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 4; i++) found[i][q] += add;
      }
      if (squares) {
        u32 bits = 0;
#pragma unroll
        for (u32 q = 0; q < 4; q++) bits |= most_of(found[0][q], found[1][q], found[2][q], found[3][q]) << 8 * q;
        *(u32*)(ties + place_of(0, channel, 0)) = bits;
      }
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        if (first + i >= rows || (squares && i > 0)) return;
        set_four(y + place_of(i, channel, phase), found[i][0], found[i][1], found[i][2], found[i][3]);
      }
      return;
    }
#pragma unroll
    for (u32 q = 0; q < 4; q++) {
      if (j + q >= columns) return;
      u32 channel = (j + q) % stored, phase = (j + q) / stored;
      float add = bias && channel < channels ? bias[channel] : 0.0f;
#pragma unroll
      for (u32 i = 0; i < 4; i++) found[i][q] += add;
      if (squares) ties[place_of(0, channel, 0)] = most_of(found[0][q], found[1][q], found[2][q], found[3][q]);
#pragma unroll
      for (u32 i = 0; i < 4; i++)
        if (first + i < rows && !(squares && i > 0)) y[place_of(i, channel, phase)] = rounded<bf16>(found[i][q]);
    }
  });
}

// The weight's gradient from `slice` output pixels for each part of the grid's third axis: out [parts, k, k, c,
// columns], with columns = up up stored of dy [n, up oh, up ow, stored]. UNPOOL: dy [n, oh, ow, stored] is the gradient
// after a pool with `ties`, whose input had twice that height and width.
#define CONV_GRAD_ARGS                                                                                                   \
  const bf16 *x, const bf16 *dy, const u8 *ties, float *out, u32 n, u32 h, u32 w, u32 c, u32 up, u32 k, u32 stride, u32 top, u32 left,   \
      u32 oh, u32 oh_factor, u32 oh_shift, u32 ow, u32 ow_factor, u32 ow_shift, u32 stored, u32 slice
#define CONV_GRAD_VALUES \
  x, dy, ties, out, n, h, w, c, up, k, stride, top, left, oh, oh_factor, oh_shift, ow, ow_factor, ow_shift, stored, slice

// Passes eight gradients after a pool on to the four pixels before it: rows `row` to `row + 3` of a tile.
template <class T, u32 CHUNKS>
__device__ __forceinline__ void unpool_chunk(char* tile, u32 row, u32 chunk, uint4 dy, uint2 ties) {
  float shares[8];
  u32 bits[8];
#pragma unroll
  for (u32 q = 0; q < 8; q++) {
    u32 pair = q / 2 == 0 ? dy.x : q / 2 == 1 ? dy.y : q / 2 == 2 ? dy.z : dy.w;
    bits[q] = (q < 4 ? ties.x : ties.y) >> q % 4 * 8;
    u32 count = (bits[q] & 1) + (bits[q] >> 1 & 1) + (bits[q] >> 2 & 1) + (bits[q] >> 3 & 1);
    float share = count == 1 ? 1.0f : count == 2 ? 0.5f : count == 3 ? 1.0f / 3.0f : 0.25f;
    shares[q] = __uint_as_float(q % 2 ? pair & 0xffff0000u : pair << 16) * share;
  }
#pragma unroll
  for (u32 p = 0; p < 4; p++) {
    auto pair = [&](u32 q) {
      return bf16_pair(bits[q] >> p & 1 ? shares[q] : 0.0f, bits[q + 1] >> p & 1 ? shares[q + 1] : 0.0f);
    };
    *(uint4*)(tile + place<T, T::TILE_DEPTH, CHUNKS>(row + p, chunk)) = uint4{pair(0), pair(2), pair(4), pair(6)};
  }
}

template <class T, u32 GRAIN, bool UNPOOL>
__device__ __forceinline__ void conv_weight_grad_block(CONV_GRAD_ARGS) {
  SHARED(char, shared);
  u32 row0 = blockIdx.y * T::ROWS, column0 = blockIdx.x * T::COLUMNS, rows = k * k * c, columns = up * up * stored;
  u32 d = blockIdx.z * slice, last = min(d + slice, n * oh * ow * (UNPOOL ? 4 : 1));
  u32 steps = d < last ? (last - d + T::TILE_DEPTH - 1) / T::TILE_DEPTH : 0;
  Divider height{oh_factor, oh_shift}, width{ow_factor, ow_shift};
  static_assert(T::TILE_DEPTH == WARP, "each thread of a warp finds one pixel of a step");
  static_assert(T::THREADS % (T::ROWS / 8) == 0, "a thread has chunks of the same rows of the gradient in every step");
  // For this thread's rows of the gradient, the row, column and memory offset of their tap; for its columns, memory
  // offsets.
  const u32 PIECES = 8 / GRAIN, CHUNKS = T::COLUMNS / 8, EACH = (T::TILE_DEPTH * CHUNKS + T::THREADS - 1) / T::THREADS;
  u32 ys[PIECES], xs[PIECES], columns_at[EACH][PIECES];
  long long rows_at[PIECES];
#pragma unroll
  for (u32 piece = 0; piece < PIECES; piece++) {
    u32 m = row0 + threadIdx.x % (T::ROWS / 8) * 8 + piece * GRAIN, tap = m / c;
    ys[piece] = m < rows ? tap / k - top : 1u << 31, xs[piece] = tap % k - left;
    rows_at[piece] = ((long long)(int)ys[piece] * w + (int)xs[piece]) * c + m % c;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      u32 j = column0 + (i * T::THREADS + threadIdx.x) % CHUNKS * 8 + piece * GRAIN, phase = up == 1 ? 0 : j / stored;
      columns_at[i][piece] = j + (phase / 2 * 2 * ow + phase % 2 - phase) * stored;
    }
  }
  // With UNPOOL a thread holds at most eight pooled gradients, for four pixels, read one step ahead.
  static_assert(!UNPOOL || CHUNKS * T::TILE_DEPTH / 4 <= T::THREADS, "one chunk of a square for each thread");
  u32 square = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
  uint4 gradients{};
  uint2 places{};
  auto read_ahead = [&](u32 first) {
    u32 at = first / 4 + square, j = column0 + 8 * chunk;
    bool there = square < T::TILE_DEPTH / 4 && 4 * at < last && j < columns;
    gradients = there ? *(const uint4*)(dy + (u64)at * stored + j) : uint4{};
    places = there ? *(const uint2*)(ties + (u64)at * stored + j) : uint2{};
  };
  if (UNPOOL) read_ahead(d);
  auto load = [&](char* left_tile, char* right_tile) {
    // This lane's pixel; with UNPOOL, pixels come in squares of four.
    u32 here = min(d + lane_of_warp(), last - 1), line = divided(UNPOOL ? here / 4 : here, width), image = divided(line, height);
    u32 px = (UNPOOL ? here / 4 : here) - line * ow, y0 = (line - image * oh) * stride, x0 = px * stride;
    if (UNPOOL) y0 = 2 * y0 + here / 2 % 2, x0 = 2 * x0 + here % 2;
    u32 in_x = (image * h + y0) * w + x0, in_dy = up == 1 ? here : line * 4 * ow + 2 * px;
    u32 yx = d + lane_of_warp() < last ? y0 << 16 | x0 : 0x7fffu << 16;  // far outside of the image if there is none
    fill_tile<T, GRAIN, T::TILE_DEPTH, T::ROWS / 8>(left_tile, [&](u32, u32 row, u32 column) {
      u32 part = column % 8 / GRAIN, place = __shfl_sync(ALL, yx, row), pixel = __shfl_sync(ALL, in_x, row);
      bool there = (place >> 16) + ys[part] < h && (place & 0xffffu) + xs[part] < w;
      return Spot{x + ((long long)((u64)pixel * c) + rows_at[part]), there};
    });
    if (UNPOOL) {
      if (square < T::TILE_DEPTH / 4) unpool_chunk<T, CHUNKS>(right_tile, 4 * square, chunk, gradients, places);
      read_ahead(d + T::TILE_DEPTH);
    } else {
      fill_tile<T, GRAIN, T::TILE_DEPTH, CHUNKS>(right_tile, [&](u32 i, u32 row, u32 column) {
        u64 pixel = __shfl_sync(ALL, in_dy, row);
        return Spot{dy + (pixel * stored + columns_at[i][column % 8 / GRAIN]), column0 + column < columns && d + row < last};
      });
    }
    d += T::TILE_DEPTH;
  };
  Sums<T> sums = {};
  multiply_tiles<T, false, false>(sums, shared, steps, load);
  hand_out<T>(sums, shared, [&](u32 row, u32 column, float(&found)[4][4]) {
    u32 j = column0 + column;
    if (j >= columns) return;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      u32 r = row0 + row + i;
      if (r >= rows) return;
      float* to = out + ((u64)blockIdx.z * rows + r) * columns + j;
      if (columns % 4 == 0) set_four(to, found[i][0], found[i][1], found[i][2], found[i][3]);
      else
        for (u32 q = 0; q < 4 && j + q < columns; q++) to[q] = found[i][q];
    }
  });
}

typedef Tile<256, 128, 32, 4, 2, 1, 4> Huge;
typedef Tile<256, 96, 32, 4, 2, 1, 4> Broad;
typedef Tile<128, 128, 32, 2, 2, 1, 4> Large;
typedef Tile<128, 64, 32, 2, 2, 1, 4> Half;
typedef Tile<128, 32, 32, 4, 1, 1, 4> Narrow;
typedef Tile<128, 16, 32, 4, 1, 1, 4> Thin;
#ifdef WARPGROUPS
typedef GroupTile<256, 128, 64, 2, 4> Group;
typedef GroupTile<256, 96, 64, 2, 4> Group96;
typedef GroupTile<128, 64, 64, 2, 4, 0> Group64;
// For weight gradients: in each step, every lane of a warp finds one pixel.
typedef GroupTile<256, 128, 32, 2, 8> GroupGrad;
typedef GroupTile<256, 96, 32, 2, 8> GroupGrad96;
typedef GroupTile<128, 64, 32, 2, 8, 0> GroupGrad64;
#endif

#define CONV(name, tile, each, grain, grad)                      \
  KERNEL __launch_bounds__(tile::THREADS, each) name(CONV_ARGS) { \
    wait_for_previous();                                          \
    conv_block<tile, grain, grad>(CONV_VALUES);                   \
  }                                                              \
  EXPORT(name)
#ifdef PART_conv
CONV(conv_huge, Huge, 1, 8, false)
CONV(conv_broad, Broad, 1, 8, false)
CONV(conv_large, Large, 2, 8, false)
CONV(conv_half, Half, 3, 8, false)
CONV(conv_narrow, Narrow, 4, 8, false)
CONV(conv_thin, Thin, 4, 8, false)
CONV(conv_large_4, Large, 2, 4, false)
CONV(conv_half_4, Half, 3, 4, false)
CONV(conv_thin_4, Thin, 4, 4, false)
CONV(conv_odd, Narrow, 3, 1, false)
#ifdef WARPGROUPS
CONV(conv_group, Group, 1, 8, false)
CONV(conv_group_96, Group96, 1, 8, false)
CONV(conv_group_64, Group64, 2, 8, false)
#endif
#endif
#ifdef PART_conv_input_grad
CONV(conv_input_grad_huge, Huge, 1, 8, true)
CONV(conv_input_grad_broad, Broad, 1, 8, true)
CONV(conv_input_grad_large, Large, 2, 8, true)
CONV(conv_input_grad_half, Half, 3, 8, true)
CONV(conv_input_grad_narrow, Narrow, 4, 8, true)
CONV(conv_input_grad_thin, Thin, 4, 8, true)
CONV(conv_input_grad_large_4, Large, 2, 4, true)
CONV(conv_input_grad_half_4, Half, 3, 4, true)
CONV(conv_input_grad_thin_4, Thin, 4, 4, true)
CONV(conv_input_grad_odd, Narrow, 3, 1, true)
#ifdef WARPGROUPS
CONV(conv_input_grad_group, Group, 1, 8, true)
CONV(conv_input_grad_group_96, Group96, 1, 8, true)
CONV(conv_input_grad_group_64, Group64, 2, 8, true)
#endif
#endif

#define CONV_GRAD(name, tile, each, grain, unpool)                    \
  KERNEL __launch_bounds__(tile::THREADS, each) name(CONV_GRAD_ARGS) { \
    wait_for_previous();                                               \
    conv_weight_grad_block<tile, grain, unpool>(CONV_GRAD_VALUES);     \
  }                                                                   \
  EXPORT(name)
#ifdef PART_conv_weight_grad
CONV_GRAD(conv_weight_grad_huge, Huge, 1, 8, false)
CONV_GRAD(conv_weight_grad_broad, Broad, 1, 8, false)
CONV_GRAD(conv_weight_grad_large, Large, 2, 8, false)
CONV_GRAD(conv_weight_grad_half, Half, 3, 8, false)
CONV_GRAD(conv_weight_grad_narrow, Narrow, 4, 8, false)
CONV_GRAD(conv_weight_grad_thin, Thin, 4, 8, false)
CONV_GRAD(conv_weight_grad_large_4, Large, 2, 4, false)
CONV_GRAD(conv_weight_grad_half_4, Half, 3, 4, false)
CONV_GRAD(conv_weight_grad_thin_4, Thin, 4, 4, false)
CONV_GRAD(conv_weight_grad_odd, Narrow, 3, 1, false)
#ifdef WARPGROUPS
CONV_GRAD(conv_weight_grad_group, GroupGrad, 1, 8, false)
CONV_GRAD(conv_weight_grad_group_96, GroupGrad96, 1, 8, false)
CONV_GRAD(conv_weight_grad_group_64, GroupGrad64, 2, 8, false)
#endif
CONV_GRAD(conv_pooled_grad_large, Large, 2, 4, true)
CONV_GRAD(conv_pooled_grad_half, Half, 3, 4, true)
CONV_GRAD(conv_pooled_grad_thin, Thin, 4, 4, true)
#endif

#endif
