// The gate of the block GRU: `u c + (1 - u) h`, c = tanh(sigmoid(reset) candidate), u = sigmoid(update - 1).
// Gates are [.., blocks, 3, width], everything else [.., blocks, width].

// A thread takes `N` neighbouring numbers of a block.

template <u32 N> struct Gates { Some<N> reset, candidate, update; };
__device__ __forceinline__ u64 gates_at(u64 i, u32 width) { return i / width * 3 * width + i % width; }
template <u32 N> __device__ __forceinline__ Gates<N> gates_of(const act* gates, u64 at, u32 width) {
  return Gates<N>{load<N>(gates + at), load<N>(gates + at + width), load<N>(gates + at + 2 * width)};
}

template <u32 N> __device__ __forceinline__ void gru_some(const act* gates, const act* h, u32 width, u32 n, act* out) {
  u64 i = global_thread() * N;
  if (i >= n) return;
  Gates<N> g = gates_of<N>(gates, gates_at(i, width), width);
  Some<N> y = load<N>(h + i);
#pragma unroll
  for (u32 k = 0; k < N; k++) {
    float c = fast_tanh(sigmoid(g.reset.x[k]) * g.candidate.x[k]), u = sigmoid(g.update.x[k] - 1.0f);
    y.x[k] = u * c + (1.0f - u) * y.x[k];
  }
  store(out + i, y);
}

// `each` numbers per thread: 8, 4, 2 or 1.
KERNEL gru(const act* gates, const act* h, u32 width, u32 n, u32 each, act* out) {
  wait_for_previous();
  if (each == 8) gru_some<8>(gates, h, width, n, out);
  else if (each == 4) gru_some<4>(gates, h, width, n, out);
  else if (each == 2) gru_some<2>(gates, h, width, n, out);
  else gru_some<1>(gates, h, width, n, out);
}
EXPORT(gru)

// Recomputes the activations: three functions cost less than reading them back.
template <u32 N>
__device__ __forceinline__ void gru_grad_some(const act* gates, const act* h, const act* dy, u32 width, u32 n, act* dgates,
                                              act* dh) {
  u64 i = global_thread() * N;
  if (i >= n) return;
  u64 at = gates_at(i, width);
  Gates<N> g = gates_of<N>(gates, at, width);
  Some<N> before = load<N>(h + i), d = load<N>(dy + i);
#pragma unroll
  for (u32 k = 0; k < N; k++) {
    float r = sigmoid(g.reset.x[k]), candidate = g.candidate.x[k];
    float c = fast_tanh(r * candidate), u = sigmoid(g.update.x[k] - 1.0f);
    float dpre = d.x[k] * u * (1.0f - c * c);  // of sigmoid(reset) candidate
    g.reset.x[k] = dpre * candidate * r * (1.0f - r);
    g.candidate.x[k] = dpre * r;
    g.update.x[k] = d.x[k] * (c - before.x[k]) * u * (1.0f - u);
    d.x[k] *= 1.0f - u;
  }
  store(dgates + at, g.reset);
  store(dgates + at + width, g.candidate);
  store(dgates + at + 2 * width, g.update);
  store(dh + i, d);
}

KERNEL gru_grad(const act* gates, const act* h, const act* dy, u32 width, u32 n, u32 each, act* dgates, act* dh) {
  wait_for_previous();
  if (each == 8) gru_grad_some<8>(gates, h, dy, width, n, dgates, dh);
  else if (each == 4) gru_grad_some<4>(gates, h, dy, width, n, dgates, dh);
  else if (each == 2) gru_grad_some<2>(gates, h, dy, width, n, dgates, dh);
  else gru_grad_some<1>(gates, h, dy, width, n, dgates, dh);
}
EXPORT(gru_grad)
