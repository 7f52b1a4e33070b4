// Convolutions with SAME padding as implicit matrix products, over images [n, channels, height, width]: a row of the
// product is a pixel, its columns are the taps of the kernel, gathered on the way into shared memory.

#define CHANNELS 32u  // output channels for each block of threads; pixels, or rows of the weight, are TILE_ROWS

// `up` is 2 where the input is upsampled first: each pixel repeated four times, or, where `sparse`, only at odd rows and
// columns with zeros between. `h` and `w` are the input's before that, `oh` and `ow` the convolution's output's.
struct Geometry { u32 n, ci, h, w, co, oh, ow, k, stride, up, sparse, top, left; };
#define GEOMETRY \
  u32 n, u32 ci, u32 h, u32 w, u32 co, u32 oh, u32 ow, u32 k, u32 stride, u32 up, u32 sparse, u32 top, u32 left
#define GEOMETRY_NAMES n, ci, h, w, co, oh, ow, k, stride, up, sparse, top, left
#define GEOMETRY_VALUES Geometry{GEOMETRY_NAMES}

// What output pixel `pixel` of all images sees through row `tap` [k, k, ci] of the weight.
__device__ __forceinline__ float seen(const float* x, const Geometry& g, u32 pixel, u32 tap) {
  if (pixel >= g.n * g.oh * g.ow || tap >= g.k * g.k * g.ci) return 0.0f;
  u32 column = pixel % g.ow, row = pixel / g.ow % g.oh, image = pixel / g.ow / g.oh;
  u32 c = tap % g.ci, b = tap / g.ci % g.k, a = tap / g.ci / g.k;
  // Before the image, these wrap around to more than its size.
  u32 y = row * g.stride + a - g.top, x0 = column * g.stride + b - g.left;
  if (y >= g.h * g.up || x0 >= g.w * g.up || (g.sparse && !(y % 2 == 1 && x0 % 2 == 1))) return 0.0f;
  return x[((u64)(image * g.ci + c) * g.h + y / g.up) * g.w + x0 / g.up];
}

// y [n, co, oh, ow] = x * weight [k, k, ci, co] + bias
template <bool BF16>
__device__ __forceinline__ void conv_block(const float* x, const float* weight, const float* bias, float* y, GEOMETRY) {
  Geometry g = GEOMETRY_VALUES;
  u32 pixel0 = blockIdx.x * TILE_ROWS, channel0 = blockIdx.y * CHANNELS;
  auto left_factor = [&](u32 i, u32 d) { return seen(x, g, pixel0 + i, d); };
  auto right_factor = [&](u32 d, u32 j) { return channel0 + j < co ? weight[(u64)d * co + channel0 + j] : 0.0f; };
  product<BF16, CHANNELS>(0, k * k * ci, true, true, left_factor, right_factor, [&](u32 i, u32 j, float sum) {
    u32 pixel = pixel0 + i, channel = channel0 + j, image = pixel / (oh * ow);
    if (pixel >= n * oh * ow || channel >= co) return;
    y[(u64)(image * co + channel) * oh * ow + pixel % (oh * ow)] = sum + bias[channel];
  });
}

// dx [n, ci, h, w] from dy: every input pixel collects from the outputs that saw it.
template <bool BF16>
__device__ __forceinline__ void conv_input_grad_block(const float* dy, const float* weight, float* dx, GEOMETRY) {
  u32 pixel0 = blockIdx.x * TILE_ROWS, channel0 = blockIdx.y * CHANNELS;
  u32 places = sparse ? 1 : up * up;  // of a pixel in the upsampled image
  auto left_factor = [&](u32 i, u32 d) {
    u32 pixel = pixel0 + i;
    if (pixel >= n * h * w) return 0.0f;
    u32 o = d % co, b = d / co % k, a = d / co / k % k, place = d / co / k / k;
    u32 column = pixel % w * up + (sparse ? 1 : place % up), row = pixel / w % h * up + (sparse ? 1 : place / up);
    u32 y = row + top - a, x = column + left - b;  // in steps of the stride; wraps around before the first
    if (y % stride || x % stride || y / stride >= oh || x / stride >= ow) return 0.0f;
    return dy[((u64)(pixel / (h * w) * co + o) * oh + y / stride) * ow + x / stride];
  };
  auto right_factor = [&](u32 d, u32 j) {
    u32 tap = d / co % (k * k);
    return channel0 + j < ci ? weight[((u64)tap * ci + channel0 + j) * co + d % co] : 0.0f;
  };
  product<BF16, CHANNELS>(0, places * k * k * co, true, false, left_factor, right_factor, [&](u32 i, u32 j, float sum) {
    u32 pixel = pixel0 + i, channel = channel0 + j;
    if (pixel >= n * h * w || channel >= ci) return;
    dx[(u64)(pixel / (h * w) * ci + channel) * h * w + pixel % (h * w)] = sum;
  });
}

// The weight's gradient from `slice` output pixels for each part of the grid's third axis: out [parts, k, k, ci, co].
template <bool BF16>
__device__ __forceinline__ void conv_weight_grad_block(const float* x, const float* dy, u32 slice, float* out, GEOMETRY) {
  Geometry g = GEOMETRY_VALUES;
  u32 row0 = blockIdx.x * TILE_ROWS, channel0 = blockIdx.y * CHANNELS, rows = k * k * ci, pixels = n * oh * ow;
  u32 first = blockIdx.z * slice, last = min(first + slice, pixels);
  auto left_factor = [&](u32 i, u32 d) { return seen(x, g, d, row0 + i); };
  auto right_factor = [&](u32 d, u32 j) {
    u32 channel = channel0 + j;
    return channel < co ? dy[(u64)(d / (oh * ow) * co + channel) * oh * ow + d % (oh * ow)] : 0.0f;
  };
  product<BF16, CHANNELS>(first, last, false, false, left_factor, right_factor, [&](u32 i, u32 j, float sum) {
    u32 row = row0 + i, channel = channel0 + j;
    if (row < rows && channel < co) out[((u64)blockIdx.z * rows + row) * co + channel] = sum;
  });
}

KERNEL conv(const float* x, const float* weight, const float* bias, float* y, GEOMETRY) {
  conv_block<false>(x, weight, bias, y, GEOMETRY_NAMES);
}
EXPORT(conv)

KERNEL conv_bf16(const float* x, const float* weight, const float* bias, float* y, GEOMETRY) {
  conv_block<true>(x, weight, bias, y, GEOMETRY_NAMES);
}
EXPORT(conv_bf16)

KERNEL conv_input_grad(const float* dy, const float* weight, float* dx, GEOMETRY) {
  conv_input_grad_block<false>(dy, weight, dx, GEOMETRY_NAMES);
}
EXPORT(conv_input_grad)

KERNEL conv_input_grad_bf16(const float* dy, const float* weight, float* dx, GEOMETRY) {
  conv_input_grad_block<true>(dy, weight, dx, GEOMETRY_NAMES);
}
EXPORT(conv_input_grad_bf16)

KERNEL conv_weight_grad(const float* x, const float* dy, u32 slice, float* out, GEOMETRY) {
  conv_weight_grad_block<false>(x, dy, slice, out, GEOMETRY_NAMES);
}
EXPORT(conv_weight_grad)

KERNEL conv_weight_grad_bf16(const float* x, const float* dy, u32 slice, float* out, GEOMETRY) {
  conv_weight_grad_block<true>(x, dy, slice, out, GEOMETRY_NAMES);
}
EXPORT(conv_weight_grad_bf16)

// 2x2 maxima: x [planes, 2 h, 2 w] -> y [planes, h, w].
KERNEL pool(const float* x, u32 planes, u32 h, u32 w, float* y) {
  u64 i = global_thread();
  if (i >= (u64)planes * h * w) return;
  const float* at = x + (i / w * 2) * 2 * w + i % w * 2;
  y[i] = fmaxf(fmaxf(at[0], at[1]), fmaxf(at[2 * w], at[2 * w + 1]));
}
EXPORT(pool)

// The pool's gradient, shared equally among tied maxima: flat regions of an image tie often.
KERNEL unpool(const float* x, const float* dy, u32 planes, u32 h, u32 w, float* dx) {
  u64 i = global_thread();
  if (i >= (u64)planes * h * w) return;
  u64 start = (i / w * 2) * 2 * w + i % w * 2, places[4] = {start, start + 1, start + 2 * w, start + 2 * w + 1};
  float most = x[start], ties = 0.0f;
  for (u32 p = 1; p < 4; p++) most = fmaxf(most, x[places[p]]);
  for (u32 p = 0; p < 4; p++) ties += x[places[p]] == most ? 1.0f : 0.0f;
  for (u32 p = 0; p < 4; p++) dx[places[p]] = x[places[p]] == most ? dy[i] / ties : 0.0f;
}
EXPORT(unpool)

// Sums over `slice` images and all pixels for each channel of x [n, c, pixels]: out [parts, c]. A warp for each.
KERNEL channel_sums(const float* x, u32 n, u32 c, u32 pixels, u32 slice, float* out) {
  u64 task = global_warp();
  u32 parts = (n + slice - 1) / slice;
  if (task >= (u64)parts * c) return;
  u32 channel = task % c, part = task / c, last = min((part + 1) * slice, n);
  float sum = 0.0f;
  for (u32 image = part * slice; image < last; image++)
    for (u32 i = lane_of_warp(); i < pixels; i += WARP) sum += x[(u64)(image * c + channel) * pixels + i];
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) out[task] = sum;
}
EXPORT(channel_sums)

// Images between [n, pixels, c] and [n, c, pixels]: rows to planes, or back.
KERNEL rows_to_planes(const float* x, u32 n, u32 pixels, u32 c, u32 back, float* y) {
  u64 i = global_thread();
  if (i >= (u64)n * pixels * c) return;
  u32 channel = i % c, pixel = i / c % pixels, image = i / c / pixels;
  u64 in_planes = (u64)(image * c + channel) * pixels + pixel;
  if (back) y[i] = x[in_planes];
  else y[in_planes] = x[i];
}
EXPORT(rows_to_planes)

// Bytes [n, pixels, c] -> `value / 255 - 0.5` in channels `first`.. of y [n, channels, pixels].
KERNEL byte_planes(const u8* x, u32 n, u32 pixels, u32 c, u32 channels, u32 first, float* y) {
  u64 i = global_thread();
  if (i >= (u64)n * pixels * c) return;
  u32 channel = first + i % c, pixel = i / c % pixels, image = i / c / pixels;
  y[(u64)(image * channels + channel) * pixels + pixel] = x[i] / 255.0f - 0.5f;
}
EXPORT(byte_planes)

// The squared error of sigmoid(logits) against bytes / 255, summed over each image: a block for each. Of the logits
// [n, channels, pixels] those from channel `first` on belong to the bytes [n, pixels, c].
KERNEL image_loss(const float* logits, const u8* bytes, u32 pixels, u32 c, u32 channels, u32 first, float* loss) {
  __shared__ float sums[32];
  u64 image = blockIdx.x;
  float sum = 0.0f;
  for (u32 i = threadIdx.x; i < pixels * c; i += blockDim.x) {
    float x = logits[(image * channels + first + i / pixels) * pixels + i % pixels];
    float d = sigmoid(x) - bytes[(image * pixels + i % pixels) * c + i / pixels] / 255.0f;
    sum += d * d;
  }
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) sums[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (u32 i = 1; i < blockDim.x / WARP; i++) sum += sums[i];
  loss[image] = sum;
}
EXPORT(image_loss)

// Its gradient in those channels; zero where `dy` is null.
KERNEL image_loss_grad(const float* logits, const u8* bytes, const float* dy, u32 n, u32 pixels, u32 c, u32 channels,
                       u32 first, float* dx) {
  u64 i = global_thread();
  if (i >= (u64)n * c * pixels) return;
  u32 pixel = i % pixels, channel = i / pixels % c, image = i / pixels / c;
  u64 at = (u64)(image * channels + first + channel) * pixels + pixel;
  float s = sigmoid(logits[at]), d = s - bytes[((u64)image * pixels + pixel) * c + channel] / 255.0f;
  dx[at] = dy ? dy[image] * 2.0f * d * s * (1.0f - s) : 0.0f;
}
EXPORT(image_loss_grad)

// sigmoid of channels `first`.. of the logits as pictures [n, pixels, c].
KERNEL pictures(const float* logits, u32 n, u32 pixels, u32 c, u32 channels, u32 first, float* y) {
  u64 i = global_thread();
  if (i >= (u64)n * pixels * c) return;
  u32 channel = first + i % c, pixel = i / c % pixels, image = i / c / pixels;
  y[i] = sigmoid(logits[(u64)(image * channels + channel) * pixels + pixel]);
}
EXPORT(pictures)
