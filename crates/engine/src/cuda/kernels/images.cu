// Images for the encoder and from the decoder: bytes to activations, the loss, pictures.

// Pixels of `from` channels -> pixels of `to` channels, truncated or padded with zeros.
KERNEL resize_pixels(const act* x, u32 pixels, u32 from, u32 to, act* y) {
  wait_for_previous();
  u64 i = global_thread();
  u32 j = i % to;
  if (i < (u64)pixels * to) y[i] = j < from ? x[i / to * from + j] : rounded<act>(0.0f);
}
EXPORT(resize_pixels)

// Bytes [pixels, c] -> `value / 255 - 0.5` in channels `first`.. of y [pixels, stored], and zeros from there to `end`.
KERNEL byte_planes(const u8* x, u32 pixels, u32 c, u32 stored, u32 first, u32 end, act* y) {
  wait_for_previous();
  u64 i = global_thread();
  u32 width = end - first, j = i % width;
  u64 pixel = i / width;
  if (pixel < pixels) y[pixel * stored + first + j] = rounded<act>(j < c ? x[pixel * c + j] / 255.0f - 0.5f : 0.0f);
}
EXPORT(byte_planes)

// The squared error of sigmoid(logits) against bytes / 255, summed over each image: a block for each. Of the logits
// [n, pixels, stored] those from channel `first` on belong to the bytes [n, pixels, c].
KERNEL image_loss(const act* logits, const u8* bytes, u32 pixels, u32 c, u32 stored, u32 first, float* loss) {
  wait_for_previous();
  __shared__ float sums[32];
  u64 start = (u64)blockIdx.x * pixels;
  float sum = 0.0f;
  for (u32 i = threadIdx.x; i < pixels * c; i += blockDim.x) {
    float d = sigmoid(number(logits[(start + i / c) * stored + first + i % c])) - bytes[start * c + i] / 255.0f;
    sum += d * d;
  }
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) sums[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (u32 i = 1; i < blockDim.x / WARP; i++) sum += sums[i];
  loss[blockIdx.x] = sum;
}
EXPORT(image_loss)

// Its gradient in those channels, with zeros after them up to `end`; all are zero where `dy` is null.
KERNEL image_loss_grad(const act* logits, const u8* bytes, const float* dy, u32 n, u32 pixels, u32 c, u32 stored, u32 first,
                       u32 end, act* dx) {
  wait_for_previous();
  u64 i = global_thread();
  u32 width = end - first, j = i % width;
  u64 pixel = i / width, at = pixel * stored + first + j;
  if (pixel >= (u64)n * pixels) return;
  float grad = 0.0f;
  if (dy && j < c) {
    float s = sigmoid(number(logits[at])), d = s - bytes[pixel * c + j] / 255.0f;
    grad = dy[pixel / pixels] * 2.0f * d * s * (1.0f - s);
  }
  dx[at] = rounded<act>(grad);
}
EXPORT(image_loss_grad)

// sigmoid of channels `first`.. of the logits [pixels, stored] as pictures [pixels, c].
KERNEL pictures(const act* logits, u32 pixels, u32 c, u32 stored, u32 first, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < (u64)pixels * c) y[i] = sigmoid(number(logits[i / c * stored + first + i % c]));
}
EXPORT(pictures)
