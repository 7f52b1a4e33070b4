// What a GPU can do at best, for comparison: multiply-adds in registers.

#define CHAINS 8u  // independent products in flight in each warp

// Tensor cores: each warp does `rounds` times CHAINS products of 16x8 by 16. The result keeps the compiler from leaving
// them out.
KERNEL peak_bf16(u32 rounds, float* out) {
  wait_for_previous();
  float sums[CHAINS][4] = {};
  u32 a[4], b[2];
  for (u32 i = 0; i < 4; i++) a[i] = bf16_pair(threadIdx.x * 1e-3f, 1e-3f * i);
  for (u32 i = 0; i < 2; i++) b[i] = bf16_pair(1e-3f * i, threadIdx.x * -1e-3f);
  for (u32 round = 0; round < rounds; round++)
#pragma unroll
    for (u32 c = 0; c < CHAINS; c++) mma(sums[c], a, b[0], b[1]);
  float sum = 0.0f;
  for (u32 c = 0; c < CHAINS; c++) sum += sums[c][0] + sums[c][1] + sums[c][2] + sums[c][3];
  out[global_thread()] = sum;
}
EXPORT(peak_bf16)

// CUDA cores: each thread does `rounds` times CHAINS multiply-adds.
KERNEL peak_f32(u32 rounds, float* out) {
  wait_for_previous();
  float sums[CHAINS] = {}, a = threadIdx.x * 1e-3f, b = 1.0f - a;
  for (u32 round = 0; round < rounds; round++)
#pragma unroll
    for (u32 c = 0; c < CHAINS; c++) sums[c] = fmaf(a, sums[c], b);
  float sum = 0.0f;
  for (u32 c = 0; c < CHAINS; c++) sum += sums[c];
  out[global_thread()] = sum;
}
EXPORT(peak_f32)
