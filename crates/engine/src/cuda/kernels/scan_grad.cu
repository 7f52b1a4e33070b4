// The gradient of scan.cu, from the last step to the first: six launches a step, or one for all steps (`backward`).
// Gradients that are sums over all steps, those of weights, biases and scales, follow in a few products
// (ops/scan/backward.rs).
//
//   latent_grad     of the logits, through the sample to their probabilities and on to the next step's embedding of it
//   posterior_grad  of the posterior's hidden layer
//   gates_grad      of deter, by all paths, and of the gates
//   hidden_grad     of the first layer's activated blocks
//   inputs_grad     of what the first layer takes: of the state before, and each block's part of the embeddings'
//   embed_grad      of the embeddings, before their norms
//
// Names and layouts are those of scan.cu; `dx` is the gradient of x.

// The gradient of stoch, `per` groups per thread block: `dstoch` (may be null) plus, through the next step's embedding,
// `dembedded` [rows, ..] w over `last` spans (0 at the last step). From it follows `dlogit`, through the mixed
// probabilities, plus `dlogit_out` (may be null). If `logit` is null, it goes to `dstart` [rows, z] as it is.
#define LATENT_GRAD_ARGS                                                                                               \
  const act* w, u32 stays, const act* dembedded, u32 stride, const act* dstoch, const act* dlogit_out,                 \
  const act* logit, u32 rows, u32 steps, u32 h, u32 groups, u32 classes, u32 per, u32 last, float unimix, act* dlogit, \
  act* dstart
#define LATENT_GRAD_VALUES                                                                                            \
  w, stays, dembedded, stride, dstoch, dlogit_out, logit, rows, steps, h, groups, classes, per, last, unimix, dlogit, \
  dstart
template <class Turn>
__device__ __forceinline__ void latent_grad_groups(const Turn& turn, LATENT_GRAD_ARGS) {
  constexpr u32 N = 4;
  SHARED(float, shared);
  u32 width = per * classes, panels = ceil_div(width, PANEL), spans = ceil_div(h, SPAN), row0 = turn.y * ROWS;
  float* dsample = shared + WARPS * ROWS * Product<N>::WIDTH;  // [ROWS, width]
  float* logits = dsample + ROWS * width;                      // [ROWS, width]
  w += (u64)turn.x * panels * spans * TILE;
  Product<N> product(w, spans, last, min(N, panels), stays);
  turn.wait();
  u32 row = row0 + own_row(), z = groups * classes;
  u64 from = (u64)row * steps * z + turn.x * width;
  for (u32 panel = 0; panel < panels; panel += N) {
    if (panel > 0) product = Product<N>(w + (u64)panel * spans * TILE, spans, last, min(N, panels - panel), stays);
    product.run(Plain{dembedded + (u64)row0 * stride, stride, rows - row0, h});
    product.share(shared);
    for (u32 n = 0; n < N; n++) {
      u32 column = (panel + n) * PANEL + own_column();
      if (column >= width) continue;
      float x = product.sum(shared, own_row(), n, own_column());
      if (row < rows && dstoch) x += fresh(dstoch + from + column);
      if (row < rows && !logit) dstart[(u64)row * z + turn.x * width + column] = rounded<act>(x);
      dsample[own_row() * width + column] = x;
      logits[own_row() * width + column] = row < rows && logit ? fresh(logit + from + column) : 0.0f;
    }
    __syncthreads();
  }
  if (!logit) return;
  Part part = part_of(classes);
  u32 side_by_side = WARP / part.width, pairs = ROWS * per;  // of a row and a group
  for (u32 pair0 = threadIdx.x / WARP * side_by_side; pair0 < pairs; pair0 += WARPS * side_by_side) {
    u32 pair = min(pair0 + lane_of_warp() / part.width, pairs - 1), of_row = row0 + pair / per;
    u32 start = pair / per * width + pair % per * classes;
    Mixture m = mixture_of(part, logits + start, classes, unimix);
    float mean = 0.0f;
    for (u32 k = part.first; k < part.last; k++) mean += m.soft(k) * dsample[start + k];
    mean = part.sum(mean);
    if (of_row >= rows) continue;
    u64 at = ((u64)of_row * steps * groups + turn.x * per + pair % per) * classes;
    for (u32 k = part.first; k < part.last; k++) {
      float x = (1.0f - unimix) * m.soft(k) * (dsample[start + k] - mean);
      dlogit[at + k] = rounded<act>(x + (dlogit_out ? fresh(dlogit_out + at + k) : 0.0f));
    }
  }
}
KERNEL latent_grad(LATENT_GRAD_ARGS) { latent_grad_groups(Launched(), LATENT_GRAD_VALUES); }
EXPORT(latent_grad)

// A number's contribution to the sum behind NormGrad's `mean`, from the gradient `dy` of y = silu(norm(x)).
__device__ __forceinline__ float of_norm(float x, float inverse, float scale, float dy) {
  float normed = x * inverse;
  return dy * silu_slope(normed * scale) * scale * normed;
}

// dactivated = dlogit w, the gradient of silu(norm(posterior)), and its sums for NormGrad.
#define POSTERIOR_GRAD_ARGS                                                                                   \
  const act* w, u32 stays, const act* dlogit, const act* posterior, const float* inverse, const float* scale, \
  u32 rows, u32 steps, u32 z, u32 h, act* dactivated, float* sums
#define POSTERIOR_GRAD_VALUES w, stays, dlogit, posterior, inverse, scale, rows, steps, z, h, dactivated, sums
template <class Turn>
__device__ __forceinline__ void posterior_grad_panel(const Turn& turn, POSTERIOR_GRAD_ARGS) {
  SHARED(float, shared);
  u32 spans = ceil_div(z, SPAN), row0 = turn.y * ROWS;
  Product<1> product(w + (u64)turn.x * spans * TILE, spans, spans, 1, stays);
  turn.wait();
  product.run(Plain{dlogit + (u64)row0 * steps * z, (u64)steps * z, rows - row0, z});
  product.share(shared);
  u32 row = row0 + own_row(), column = turn.x * PANEL + own_column();
  float sum = 0.0f;
  if (row < rows && column < h) {
    u64 at = (u64)row * steps * h + column;
    act x = rounded<act>(product.sum(shared, own_row(), 0, own_column()));
    dactivated[at] = x;
    sum = of_norm(fresh(posterior + at), __ldg(inverse + (u64)row * steps), __ldg(scale + column), number(x));
  }
  leave(sums, turn.x, rows, row0, sum);
}
KERNEL posterior_grad(POSTERIOR_GRAD_ARGS) { posterior_grad_panel(Launched(), POSTERIOR_GRAD_VALUES); }
EXPORT(posterior_grad)

// What NormGrad needs of the block's rows, in shared memory: the factors of their norms, and means over n numbers.
struct Norms {
  float inverse[ROWS], mean[ROWS];
};
__device__ __forceinline__ void load_norms(const float* inverse, const float* sums, u32 slots, u32 rows, u32 row0,
                                           u32 steps, u32 n, Norms& norms) {
  add_up(sums, slots, rows, row0, norms.mean);
  __syncthreads();
  if (threadIdx.x < ROWS) {
    u32 row = row0 + threadIdx.x;
    norms.mean[threadIdx.x] /= n;
    norms.inverse[threadIdx.x] = row < rows ? __ldg(inverse + (u64)row * steps) : 0.0f;
  }
  __syncthreads();
}

// The gradient of deter: `ddeter` (may be null) plus `carried` [rows, d] from the next step, if there is one, plus the
// gradients through the posterior's hidden layer, if `of_posterior` is not null, and through the next step's embedding,
// `dembedded` [rows, ..]. From it follow the gradients of the gates and, in `carried`, that of the state before,
// through the gates. If `gates` is null, it goes to `dstart` [rows, d] as it is.
#define GATES_GRAD_ARGS                                                                                               \
  const act* of_posterior, const act* of_deter, u32 stays, const act* dactivated, const act* posterior,               \
  const float* inverse, const float* sums, u32 slots, const float* scale, const act* dembedded, u32 stride, u32 next, \
  const act* gates, const act* prev, const act* ddeter, u32 rows, u32 steps, u32 h, u32 d, u32 own, float* carried,   \
  act* dgates, act* dstart
#define GATES_GRAD_VALUES                                                                                            \
  of_posterior, of_deter, stays, dactivated, posterior, inverse, sums, slots, scale, dembedded, stride, next, gates, \
  prev, ddeter, rows, steps, h, d, own, carried, dgates, dstart
template <u32 N, class Turn>
__device__ __forceinline__ void gates_grad_panels(const Turn& turn, GATES_GRAD_ARGS) {
  SHARED(float, shared);
  __shared__ Norms norms;
  u32 spans = ceil_div(h, SPAN), panels = ceil_div(d, PANEL), panel0 = turn.x * N, row0 = turn.y * ROWS;
  u64 start = (u64)panel0 * spans * TILE;
  Product<N> product(of_deter + start, spans, next ? spans : 0, min(N, panels - panel0), stays);
  turn.wait();
  product.run(Plain{dembedded + (u64)row0 * stride, stride, rows - row0, h});
  if (of_posterior) {
    product.with(of_posterior + start, spans, spans);
    load_norms(inverse, sums, slots, rows, row0, steps, h, norms);
    u64 at = (u64)row0 * steps * h, apart = (u64)steps * h;
    product.run(NormGrad{Plain{posterior + at, apart, rows - row0, h}, Plain{dactivated + at, apart, rows - row0, h},
                         scale, norms.inverse, norms.mean});
  }
  product.share(shared);
  u32 row = row0 + own_row();
  for (u32 n = 0; n < N; n++) {
    u32 column = (panel0 + n) * PANEL + own_column();
    if (row >= rows || column >= d) continue;
    u64 at = (u64)row * steps * d + column;
    float* carry = carried + (u64)row * d + column;
    float dy = product.sum(shared, own_row(), n, own_column());
    if (next) dy += __ldcg(carry);
    if (ddeter) dy += fresh(ddeter + at);
    if (!gates) {
      dstart[(u64)row * d + column] = rounded<act>(dy);
      continue;
    }
    u64 gate = (u64)row * steps * 3 * d + column / own * 3 * own + column % own;
    float r = quick_sigmoid(fresh(gates + gate)), candidate = fresh(gates + gate + own);
    float c = quick_tanh(r * candidate), u = quick_sigmoid(fresh(gates + gate + 2 * own) - 1.0f);
    float dpre = dy * u * (1.0f - c * c);  // of sigmoid(reset) candidate
    dgates[gate] = rounded<act>(dpre * candidate * r * (1.0f - r));
    dgates[gate + own] = rounded<act>(dpre * r);
    dgates[gate + 2 * own] = rounded<act>(dy * (c - fresh(prev + at)) * u * (1.0f - u));
    *carry = dy * (1.0f - u);
  }
}
KERNEL gates_grad(GATES_GRAD_ARGS) { gates_grad_panels<1>(Launched(), GATES_GRAD_VALUES); }
EXPORT(gates_grad)
KERNEL gates_grad_wide(GATES_GRAD_ARGS) { gates_grad_panels<2>(Launched(), GATES_GRAD_VALUES); }
EXPORT(gates_grad_wide)

// dactivated = dgates w of each block, the gradient of silu(norm(y)), and its sums for NormGrad.
#define HIDDEN_GRAD_ARGS                                                                                        \
  const act* w, u32 stays, const act* dgates, const act* y, const float* inverse, const float* scale, u32 rows, \
  u32 steps, u32 d, u32 own, act* dactivated, float* sums
#define HIDDEN_GRAD_VALUES w, stays, dgates, y, inverse, scale, rows, steps, d, own, dactivated, sums
template <u32 N, class Turn>
__device__ __forceinline__ void hidden_grad_panels(const Turn& turn, HIDDEN_GRAD_ARGS) {
  SHARED(float, shared);
  u32 panels = ceil_div(own, PANEL), parts = ceil_div(panels, N), block = turn.x / parts,
      panel0 = turn.x % parts * N;
  u32 row0 = turn.y * ROWS, spans = ceil_div(3 * own, SPAN), row = row0 + own_row();
  Product<N> product(w + (u64)(block * panels + panel0) * spans * TILE, spans, spans, min(N, panels - panel0), stays);
  turn.wait();
  u64 apart = (u64)steps * 3 * d;
  product.run(Plain{dgates + row0 * apart + block * 3 * own, apart, rows - row0, 3 * own});
  product.share(shared);
  float sum = 0.0f;
  for (u32 n = 0; n < N; n++) {
    u32 column = (panel0 + n) * PANEL + own_column();
    if (row >= rows || column >= own) continue;
    u64 at = (u64)row * steps * d + block * own + column;
    act x = rounded<act>(product.sum(shared, own_row(), n, own_column()));
    dactivated[at] = x;
    sum += of_norm(fresh(y + at), __ldg(inverse + (u64)row * steps), __ldg(scale + block * own + column), number(x));
  }
  leave(sums, turn.x, rows, row0, sum);
}
KERNEL hidden_grad(HIDDEN_GRAD_ARGS) { hidden_grad_panels<1>(Launched(), HIDDEN_GRAD_VALUES); }
EXPORT(hidden_grad)
KERNEL hidden_grad_wide(HIDDEN_GRAD_ARGS) { hidden_grad_panels<2>(Launched(), HIDDEN_GRAD_VALUES); }
EXPORT(hidden_grad_wide)

// The gradient of y, from `dactivated`, times each block's w: first panels of the block's own deter, added to `carried`
// [rows, d], which is zeroed where the state was not kept; then panels of its part of the gradient of both embeddings:
// parts [blocks, rows, 2 h].
#define INPUTS_GRAD_ARGS                                                                                            \
  const act* w, u32 stays, const act* dactivated, const act* y, const float* inverse, const float* sums, u32 slots, \
  const float* scale, const float* keep, u32 rows, u32 steps, u32 d, u32 own, u32 h, float* carried, float* parts
#define INPUTS_GRAD_VALUES                                                                           \
  w, stays, dactivated, y, inverse, sums, slots, scale, keep, rows, steps, d, own, h, carried, parts
template <u32 N, class Turn>
__device__ __forceinline__ void inputs_grad_panels(const Turn& turn, INPUTS_GRAD_ARGS) {
  SHARED(float, shared);
  __shared__ Norms norms;
  u32 of_own = ceil_div(own, PANEL), panels = of_own + ceil_div(2 * h, PANEL), each = ceil_div(panels, N);
  u32 block = turn.x / each, panel0 = turn.x % each * N, row0 = turn.y * ROWS, spans = ceil_div(own, SPAN);
  Product<N> product(w + (u64)(block * panels + panel0) * spans * TILE, spans, spans, min(N, panels - panel0), stays);
  turn.wait();
  load_norms(inverse, sums, slots, rows, row0, steps, d, norms);
  u64 at = (u64)row0 * steps * d + block * own, apart = (u64)steps * d;
  product.run(NormGrad{Plain{y + at, apart, rows - row0, own}, Plain{dactivated + at, apart, rows - row0, own},
                       scale + block * own, norms.inverse, norms.mean});
  product.share(shared);
  u32 row = row0 + own_row();
  if (row >= rows) return;
  bool kept = __ldg(keep + (u64)row * steps) != 0.0f;
  for (u32 n = 0; n < N; n++) {
    u32 panel = panel0 + n, column = panel * PANEL + own_column();
    float x = panel < panels ? product.sum(shared, own_row(), n, own_column()) : 0.0f;
    if (panel < of_own && column < own) {
      float* carry = carried + (u64)row * d + block * own + column;
      *carry = kept ? __ldcg(carry) + x : 0.0f;
    }
    column -= of_own * PANEL;
    if (panel >= of_own && column < 2 * h) parts[((u64)block * rows + row) * 2 * h + column] = x;
  }
}
KERNEL inputs_grad(INPUTS_GRAD_ARGS) { inputs_grad_panels<1>(Launched(), INPUTS_GRAD_VALUES); }
EXPORT(inputs_grad)
KERNEL inputs_grad_wide(INPUTS_GRAD_ARGS) { inputs_grad_panels<4>(Launched(), INPUTS_GRAD_VALUES); }
EXPORT(inputs_grad_wide)

// A thread block for each row and embedding: adds up the model blocks' parts of the gradient of silu(norm(embedding)),
// leaves it in ddeter or dstoch [h], and the embedding's own gradient, zero where the state was not kept, in dembedded
// [rows, 2 h].
#define EMBED_GRAD_ARGS                                                                                              \
  const float* parts, const act* of_deter, const act* of_stoch, const float* scale_deter, const float* scale_stoch,  \
  const float* keep, u32 rows, u32 steps, u32 h, u32 blocks, float epsilon, act* ddeter, act* dstoch, act* dembedded
#define EMBED_GRAD_VALUES                                                                                     \
  parts, of_deter, of_stoch, scale_deter, scale_stoch, keep, rows, steps, h, blocks, epsilon, ddeter, dstoch, \
  dembedded
template <class Turn>
__device__ __forceinline__ void embed_grad_row(const Turn& turn, EMBED_GRAD_ARGS) {
  SHARED(float, dy);  // [h]
  __shared__ float totals[2][WARPS];
  u64 row = turn.x;
  bool second = turn.y > 0;
  const act* x = (second ? of_stoch : of_deter) + row * steps * h;
  const float* scale = second ? scale_stoch : scale_deter;
  act* out = (second ? dstoch : ddeter) + row * steps * h;
  turn.wait();
  float squares = 0.0f;
  for (u32 n = threadIdx.x; n < h; n += THREADS) squares += fresh(x + n) * fresh(x + n);
  squares = warp_sum(squares);
  if (lane_of_warp() == 0) totals[0][threadIdx.x / WARP] = squares;
  __syncthreads();
  float total = 0.0f;
  for (u32 w = 0; w < WARPS; w++) total += totals[0][w];
  float inverse = inverse_of(total, h, epsilon), sum = 0.0f;
  for (u32 n = threadIdx.x; n < h; n += THREADS) {
    float d = 0.0f;
    for (u32 b = 0; b < blocks; b++) d += __ldcg(parts + (b * (u64)rows + row) * 2 * h + (second ? h : 0) + n);
    act rounded_d = rounded<act>(d);
    out[n] = rounded_d;
    dy[n] = number(rounded_d);  // this thread alone reads it
    sum += of_norm(fresh(x + n), inverse, scale[n], dy[n]);
  }
  sum = warp_sum(sum);
  if (lane_of_warp() == 0) totals[1][threadIdx.x / WARP] = sum;
  __syncthreads();
  float mean = 0.0f;
  for (u32 w = 0; w < WARPS; w++) mean += totals[1][w];
  mean /= h;
  bool kept = __ldg(keep + row * steps) != 0.0f;
  for (u32 n = threadIdx.x; n < h; n += THREADS) {
    float normed = fresh(x + n) * inverse;
    float d = inverse * (dy[n] * silu_slope(normed * scale[n]) * scale[n] - normed * mean);
    dembedded[row * 2 * h + (second ? h : 0) + n] = rounded<act>(kept ? d : 0.0f);
  }
}
KERNEL embed_grad(EMBED_GRAD_ARGS) { embed_grad_row(Launched(), EMBED_GRAD_VALUES); }
EXPORT(embed_grad)

// ---- All steps in one launch.

struct Backward {
  const act *of_posterior, *of_deter, *of_hidden, *of_gates, *of_logits, *of_stoch;  // packed weights, transposed
  const float *scale_deter, *scale_stoch, *scale_hidden, *scale_posterior;
  const act *given_deter, *given_stoch, *given_logit;  // gradients of the outputs, of which any may be null
  const float *keep, *hidden_inverse, *posterior_inverse;
  const act *prev, *embedded, *embedded_stoch, *hidden, *gates, *posterior, *logit;  // of the forward pass
  act *dembedded_deter, *dembedded_stoch, *dhidden, *dgates, *dposterior, *dlogit;   // left for what follows
  act *first_deter, *first_stoch, *dembedded;
  float *hidden_sums, *posterior_sums, *carried, *parts;
  u32* count;
  u32 rows, steps, d, own, h, groups, classes, per;
  u32 latent_stays, posterior_stays, gates_stays, hidden_stays, inputs_stays, unused;
  float unimix, epsilon;
};
static_assert(sizeof(Backward) == 37 * 8 + 16 * 4, "what ops/scan/backward.rs hands in");

// M: panels of the embeddings' gradients per thread block.
template <u32 N, u32 M>
__device__ __forceinline__ void backward_steps(const Backward& b) {
  wait_for_previous<WAIT_ALONE>();  // keeps the next kernel from starting before the end: it would take up room
  Meeting meeting(b.count);
  u32 rows = b.rows, steps = b.steps, d = b.d, own = b.own, h = b.h, blocks = d / own;
  u32 groups = b.groups, classes = b.classes, per = b.per, z = groups * classes;
  u32 tiles = ceil_div(rows, ROWS), of_h = ceil_div(h, PANEL), of_own = ceil_div(own, PANEL);
  u32 parts = blocks * ceil_div(of_own, N), inputs = blocks * ceil_div(of_own + ceil_div(2 * h, PANEL), M);
  for (u32 left = steps;; left--) {
    // Step t or, if none is left, the state before the first step.
    bool any = left > 0, stay = left > 1, next = left < steps;
    u64 t = any ? left - 1 : 0;
    meeting.kernel(groups / per, tiles, [&](const Meeting::Turn& turn) {
      latent_grad_groups(turn, b.of_stoch, stay && b.latent_stays, b.dembedded + h, 2 * h,
                         any && b.given_stoch ? b.given_stoch + t * z : nullptr,
                         any && b.given_logit ? b.given_logit + t * z : nullptr, any ? b.logit + t * z : nullptr, rows,
                         steps, h, groups, classes, per, next ? ceil_div(h, SPAN) : 0, b.unimix,
                         any ? b.dlogit + t * z : nullptr, any ? nullptr : b.first_stoch);
    });
    if (any)
      meeting.kernel(of_h, tiles, [&](const Meeting::Turn& turn) {
        posterior_grad_panel(turn, b.of_logits, stay && b.posterior_stays, b.dlogit + t * z, b.posterior + t * h,
                             b.posterior_inverse + t, b.scale_posterior, rows, steps, z, h, b.dposterior + t * h,
                             b.posterior_sums);
      });
    meeting.kernel(ceil_div(ceil_div(d, PANEL), N), tiles, [&](const Meeting::Turn& turn) {
      gates_grad_panels<N>(turn, any ? b.of_posterior : nullptr, b.of_deter, stay && b.gates_stays,
                           b.dposterior + t * h, b.posterior + t * h, b.posterior_inverse + t, b.posterior_sums, of_h,
                           b.scale_posterior, b.dembedded, 2 * h, next, any ? b.gates + t * 3 * d : nullptr,
                           b.prev + t * d, any && b.given_deter ? b.given_deter + t * d : nullptr, rows, steps, h, d,
                           own, b.carried, b.dgates + t * 3 * d, b.first_deter);
    });
    if (!any) break;
    meeting.kernel(parts, tiles, [&](const Meeting::Turn& turn) {
      hidden_grad_panels<N>(turn, b.of_gates, stay && b.hidden_stays, b.dgates + t * 3 * d, b.hidden + t * d,
                            b.hidden_inverse + t, b.scale_hidden, rows, steps, d, own, b.dhidden + t * d,
                            b.hidden_sums);
    });
    meeting.kernel(inputs, tiles, [&](const Meeting::Turn& turn) {
      inputs_grad_panels<M>(turn, b.of_hidden, stay && b.inputs_stays, b.dhidden + t * d, b.hidden + t * d,
                            b.hidden_inverse + t, b.hidden_sums, parts, b.scale_hidden, b.keep + t, rows, steps, d, own,
                            h, b.carried, b.parts);
    });
    u32 both = gridDim.x < 2 * rows;  // a block for each row takes one embedding after the other
    meeting.kernel(rows, 2 - both, [&](const Meeting::Turn& turn) {
      turn.wait();
      for (u32 y = turn.y; y <= turn.y + both; y++) {
        __syncthreads();
        embed_grad_row(Meeting::Begun{turn.x, y}, b.parts, b.embedded + t * h, b.embedded_stoch + t * h, b.scale_deter,
                       b.scale_stoch, b.keep + t, rows, steps, h, blocks, b.epsilon, b.dembedded_deter + t * h,
                       b.dembedded_stoch + t * h, b.dembedded);
      }
    });
  }
  meeting.wait();
}

KERNEL backward(const __grid_constant__ Backward b) { backward_steps<1, 4>(b); }
EXPORT_MEETING(backward)
KERNEL backward_wide(const __grid_constant__ Backward b) { backward_steps<2, 6>(b); }
EXPORT_MEETING(backward_wide)
