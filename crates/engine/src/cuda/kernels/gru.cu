// The gate of the block GRU: `u c + (1 - u) h`, c = tanh(sigmoid(reset) candidate), u = sigmoid(update - 1).
// Gates are [.., blocks, 3, width], everything else [.., blocks, width].

struct Gates { u64 reset, candidate, update; };
__device__ __forceinline__ Gates gates_of(u64 i, u32 width) {
  u64 start = i / width * 3 * width + i % width;
  return Gates{start, start + width, start + 2 * width};
}

KERNEL gru(const float* gates, const float* h, u32 width, u32 n, float* out) {
  u64 i = global_thread();
  if (i >= n) return;
  Gates g = gates_of(i, width);
  float c = tanhf(sigmoid(gates[g.reset]) * gates[g.candidate]);
  float u = sigmoid(gates[g.update] - 1.0f);
  out[i] = u * c + (1.0f - u) * h[i];
}
EXPORT(gru)

// Recomputes the activations: three functions cost less than reading them back.
KERNEL gru_grad(const float* gates, const float* h, const float* dy, u32 width, u32 n, float* dgates, float* dh) {
  u64 i = global_thread();
  if (i >= n) return;
  Gates g = gates_of(i, width);
  float r = sigmoid(gates[g.reset]), candidate = gates[g.candidate];
  float c = tanhf(r * candidate), u = sigmoid(gates[g.update] - 1.0f);
  float dpre = dy[i] * u * (1.0f - c * c);  // of sigmoid(reset) candidate
  dgates[g.reset] = dpre * candidate * r * (1.0f - r);
  dgates[g.candidate] = dpre * r;
  dgates[g.update] = dy[i] * (c - h[i]) * u * (1.0f - u);
  dh[i] = dy[i] * (1.0f - u);
}
EXPORT(gru_grad)
