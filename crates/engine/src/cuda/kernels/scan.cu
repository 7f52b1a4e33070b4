// The posterior of a recurrent state-space model over sequences, forward (ops/scan.rs): five launches a step, or one
// for all steps (`forward`), whose blocks of threads take turns at what the launches do.
//
//   inputs   the embeddings of deter and stoch, normed
//   hidden   their product with each block of the first layer
//   gates    its norm, the three gates of each block, the next deter
//   project  products of deter for the posterior and for the next step's embedding
//   latent   the posterior's logits and a sample of them
//
// Weights are packed (`pack`), and stay in the L2 cache if `stays` says so. All activations are [rows, steps, ..] and
// passed from the current step on. `d` is the width of deter, in blocks of `own`; `h` that of the hidden layers; `z`
// that of stoch, in groups of `classes`.

// Parts of weights to be packed for products. Of part i, number (k, n) of block (outer, inner) is
// w[outer outer_from + inner inner_from + k k_from + n n_from]. It goes to panel
// outer outer_panels + first_panel + n / 16 panel_step + inner, span first_span + k / 32 of `spans`; zeros fill what is
// beyond `depth` and `columns`. `end` counts the blocks of threads of this part and those before it.
constexpr u32 PARTS = 48;
struct Parts {
  const float* w[PARTS];
  act* out[PARTS];
  u32 outer[PARTS], outer_from[PARTS], inner[PARTS], inner_from[PARTS], depth[PARTS], k_from[PARTS], columns[PARTS],
      n_from[PARTS];
  u32 outer_panels[PARTS], first_panel[PARTS], panel_step[PARTS], spans[PARTS], first_span[PARTS], end[PARTS];
};

// A tile has its numbers in the order in which a warp reads them: in bfloat16, for each half of the columns and each
// lane (g, t), those of rows 8 t to 8 t + 7 in column g; in float32 row by row. A thread packs eight numbers.
KERNEL pack(const __grid_constant__ Parts p, u32 count) {
  wait_for_previous<WAIT_ALONE>();
  u32 j = table_row(p.end, count, blockIdx.x), depth = p.depth[j], columns = p.columns[j];
  u64 i = (u64)(blockIdx.x - (j > 0 ? p.end[j - 1] : 0)) * blockDim.x + threadIdx.x;
  u32 part = i % (TILE / 8), own_spans = ceil_div(depth, SPAN), own_panels = ceil_div(columns, PANEL);
  u64 rest = i / (TILE / 8);
  u32 span = rest % own_spans;
  rest /= own_spans;
  u32 panel = rest % own_panels;
  rest /= own_panels;
  u32 inner = rest % p.inner[j], outer = rest / p.inner[j];
  if (outer >= p.outer[j]) return;
  const float* w = p.w[j] + (u64)outer * p.outer_from[j] + (u64)inner * p.inner_from[j];
  u64 to = (u64)outer * p.outer_panels[j] + p.first_panel[j] + panel * p.panel_step[j] + inner;
  act* tile = p.out[j] + (to * p.spans[j] + p.first_span[j] + span) * TILE;
  float x[8];
#ifdef ACT_BF16
  u32 lane = part % WARP, k0 = span * SPAN + lane % 4 * 8, n0 = panel * PANEL + part / WARP * 8 + lane / 4, of_k = 1;
#else
  u32 k0 = span * SPAN + part / 2, n0 = panel * PANEL + part % 2 * 8, of_k = 0;
#endif
  for (u32 e = 0; e < 8; e++) {
    u32 k = k0 + of_k * e, n = n0 + (1 - of_k) * e;
    x[e] = k < depth && n < columns ? w[(u64)k * p.k_from[j] + (u64)n * p.n_from[j]] : 0.0f;
  }
  ((Eight*)tile)[part] = pack_eight(x);
}
EXPORT(pack)

// Writes the state that the first step starts from, `deter` [rows, d] and `stoch` [rows, z], zeroed where an episode
// starts, to step 0 of prev and prev_stoch; and another copy of stoch to first_stoch [rows, z].
KERNEL start(const act* deter, const act* stoch, const float* keep, u32 rows, u32 steps, u32 d, u32 z, act* prev,
             act* prev_stoch, act* first_stoch) {
  wait_for_previous();
  u64 i = global_thread();
  if (i >= (u64)rows * (d + z)) return;
  u32 row = i / (d + z), j = i % (d + z);
  bool kept = keep[(u64)row * steps] != 0.0f;
  if (j < d) {
    prev[(u64)row * steps * d + j] = kept ? deter[(u64)row * d + j] : rounded<act>(0.0f);
    return;
  }
  j -= d;
  act x = kept ? stoch[(u64)row * z + j] : rounded<act>(0.0f);
  prev_stoch[(u64)row * steps * z + j] = x;
  first_stoch[(u64)row * z + j] = x;
}
EXPORT(start)

// A block for each row. The embedding of stoch is the sum of the chosen rows of its weight `w` [z, h], or at the first
// step `dense` [rows, h]; that of deter is given (`embedded`). Both are normed: inputs [2 h].
#define INPUTS_ARGS                                                                                             \
  const act* embedded, const act* w, const act* dense, const u32* chosen, const float* keep, const float* bias, \
  const float* scale_deter, const float* scale_stoch, u32 steps, u32 h, u32 groups, u32 classes, float epsilon, \
  act* of_stoch, act* inputs
#define INPUTS_VALUES                                                                                             \
  embedded, w, dense, chosen, keep, bias, scale_deter, scale_stoch, steps, h, groups, classes, epsilon, of_stoch, \
  inputs
template <class Turn>
__device__ __forceinline__ void inputs_row(const Turn& turn, INPUTS_ARGS) {
  SHARED(float, sums);  // [parts, columns]: parts of the groups are added up side by side
  __shared__ float squares[2][WARPS];
  u32 eights = ceil_div(h, 8), parts = max(1u, THREADS / eights), columns = eights * 8;
  u64 row = turn.x;
  turn.wait();
  bool kept = !dense && __ldg(keep + row * steps) != 0.0f;
  for (u32 i = threadIdx.x; i < eights * parts; i += THREADS) {
    u32 part = i / eights, n = i % eights * 8;
    float total[8] = {};
    if (kept)
      for (u32 s = part; s < groups; s += parts) {
        u32 class_ = __ldcg(chosen + row * groups + s);
        float x[8];
        unpack(load_eight(w + ((u64)s * classes + class_) * h + n, (int)h - (int)n), x);
        for (u32 e = 0; e < 8; e++) total[e] += x[e];
      }
    for (u32 e = 0; e < 8; e++) sums[part * columns + n + e] = total[e];
  }
  __syncthreads();
  embedded += row * steps * h, of_stoch += row * steps * h, inputs += row * steps * 2 * h;
  float of_deter = 0.0f, of_both = 0.0f;
  for (u32 n = threadIdx.x; n < h; n += THREADS) {
    float x = dense ? fresh(dense + row * h + n) : 0.0f;
    for (u32 part = 0; part < parts; part++) x += sums[part * columns + n];
    act y = rounded<act>(x + bias[n]);
    of_stoch[n] = y;
    sums[n] = number(y);  // this thread alone reads that column
    of_both += number(y) * number(y);
    of_deter += fresh(embedded + n) * fresh(embedded + n);
  }
  of_deter = warp_sum(of_deter), of_both = warp_sum(of_both);
  if (lane_of_warp() == 0) squares[0][threadIdx.x / WARP] = of_deter, squares[1][threadIdx.x / WARP] = of_both;
  __syncthreads();
  float inverse[2];
  for (u32 i = 0; i < 2; i++) {
    float total = 0.0f;
    for (u32 w = 0; w < WARPS; w++) total += squares[i][w];
    inverse[i] = inverse_of(total, h, epsilon);
  }
  for (u32 n = threadIdx.x; n < h; n += THREADS) {
    inputs[n] = rounded<act>(silu(fresh(embedded + n) * inverse[0] * scale_deter[n]));
    inputs[h + n] = rounded<act>(silu(sums[n] * inverse[1] * scale_stoch[n]));
  }
}
KERNEL inputs(INPUTS_ARGS) { inputs_row(Launched(), INPUTS_VALUES); }
EXPORT(inputs)

// y = [deter of the block, inputs] w + actions, and its sums of squares. Thread blocks: [panels of each block / N] by
// rows / 16.
#define HIDDEN_ARGS                                                                                            \
  const act* w, u32 stays, const act* prev, const act* inputs, const act* actions, u32 rows, u32 steps, u32 d, \
  u32 own, u32 h, act* y, float* squares
#define HIDDEN_VALUES w, stays, prev, inputs, actions, rows, steps, d, own, h, y, squares
template <u32 N, class Turn>
__device__ __forceinline__ void hidden_panels(const Turn& turn, HIDDEN_ARGS) {
  SHARED(float, shared);
  u32 panels = ceil_div(own, PANEL), parts = ceil_div(panels, N), block = turn.x / parts,
      panel0 = turn.x % parts * N;
  u32 row0 = turn.y * ROWS, first = ceil_div(own, SPAN), spans = first + ceil_div(2 * h, SPAN);
  Product<N> product(w + (u64)(block * panels + panel0) * spans * TILE, spans, spans, min(N, panels - panel0), stays);
  turn.wait();
  u64 at = (u64)row0 * steps;
  Plain deter{prev + at * d + block * own, (u64)steps * d, rows - row0, own};
  Plain embedded{inputs + at * 2 * h, (u64)steps * 2 * h, rows - row0, 2 * h};
  product.run(Joined<Plain, Plain>{deter, embedded, first * SPAN});
  product.share(shared);
  float square = 0.0f;
  at = (u64)(row0 + own_row()) * steps * d + block * own;
  for (u32 n = 0; n < N; n++) {
    u32 column = (panel0 + n) * PANEL + own_column();
    if (row0 + own_row() >= rows || column >= own) continue;
    act x = rounded<act>(product.sum(shared, own_row(), n, own_column()) + fresh(actions + at + column));
    y[at + column] = x;
    square += number(x) * number(x);
  }
  leave(squares, turn.x, rows, row0, square);
}
KERNEL hidden(HIDDEN_ARGS) { hidden_panels<1>(Launched(), HIDDEN_VALUES); }
EXPORT(hidden)
KERNEL hidden_wide(HIDDEN_ARGS) { hidden_panels<2>(Launched(), HIDDEN_VALUES); }
EXPORT(hidden_wide)

// The gates [.., blocks, 3, own] from silu(norm(y)), and with them the next deter. prev_next (null at the last step)
// gets a copy, zero where the next step does not keep the state. `inverse` [rows, steps] is left for the gradient. For
// each of its PANELS panels a thread block has all three gates, which a packed weight has side by side.
#define GATES_ARGS                                                                                                     \
  const act* w, u32 stays, const act* y, const float* squares, u32 slots, const float* scale, const float* bias,       \
  const act* prev, const float* keep_next, u32 rows, u32 steps, u32 d, u32 own, float epsilon, act* gates, act* deter, \
  act* prev_next, float* inverse
#define GATES_VALUES                                                                                                \
  w, stays, y, squares, slots, scale, bias, prev, keep_next, rows, steps, d, own, epsilon, gates, deter, prev_next, \
  inverse
template <u32 PANELS, class Turn>
__device__ __forceinline__ void gates_panels(const Turn& turn, GATES_ARGS) {
  SHARED(float, shared);
  __shared__ float factor[ROWS];
  u32 panels = ceil_div(own, PANEL), parts = ceil_div(panels, PANELS), block = turn.x / parts;
  u32 panel0 = turn.x % parts * PANELS, row0 = turn.y * ROWS, spans = ceil_div(own, SPAN);
  u32 used = min(PANELS, panels - panel0);
  Product<3 * PANELS> product(w + (u64)(block * panels + panel0) * 3 * spans * TILE, spans, spans, 3 * used, stays);
  turn.wait();
  add_up(squares, slots, rows, row0, factor);
  __syncthreads();
  if (threadIdx.x < ROWS) factor[threadIdx.x] = inverse_of(factor[threadIdx.x], d, epsilon);
  __syncthreads();
  u32 row = row0 + own_row();
  if (turn.x == 0 && own_column() == 0 && row < rows) inverse[(u64)row * steps] = factor[own_row()];
  Plain x{y + (u64)row0 * steps * d + block * own, (u64)steps * d, rows - row0, own};
  product.run(Normed{x, scale + block * own, factor});
  product.share(shared);
  for (u32 p = 0; p < PANELS; p++) {
    u32 column = (panel0 + p) * PANEL + own_column();
    if (row >= rows || column >= own) continue;
    u64 at = (u64)row * steps * d + block * own + column, gate0 = (u64)row * steps * 3 * d + block * 3 * own + column;
    float g[3];
    for (u32 i = 0; i < 3; i++) {
      act x = rounded<act>(product.sum(shared, own_row(), 3 * p + i, own_column()) +
                           bias[block * 3 * own + i * own + column]);
      gates[gate0 + i * own] = x;
      g[i] = number(x);
    }
    float u = quick_sigmoid(g[2] - 1.0f);
    act next = rounded<act>(u * quick_tanh(quick_sigmoid(g[0]) * g[1]) + (1.0f - u) * fresh(prev + at));
    deter[at] = next;
    if (prev_next) prev_next[at] = __ldg(keep_next + (u64)row * steps) != 0.0f ? next : rounded<act>(0.0f);
  }
}
KERNEL gates(GATES_ARGS) { gates_panels<1>(Launched(), GATES_VALUES); }
EXPORT(gates)
KERNEL gates_wide(GATES_ARGS) { gates_panels<2>(Launched(), GATES_VALUES); }
EXPORT(gates_wide)

// Panels from `first` on of two products: deter times the posterior's first layer, plus tokens, with sums of squares;
// and the embedding of prev, which is deter where the next step keeps it. If the weight `of_posterior` is null, the
// first is the tokens alone.
#define PROJECT_ARGS                                                                                             \
  const act* of_posterior, const act* of_deter, u32 stays, const act* deter, const act* prev, const act* tokens, \
  const float* bias, u32 rows, u32 steps, u32 d, u32 h, u32 first, act* posterior, float* squares, act* embedded
#define PROJECT_VALUES                                                                                             \
  of_posterior, of_deter, stays, deter, prev, tokens, bias, rows, steps, d, h, first, posterior, squares, embedded
template <class Turn>
__device__ __forceinline__ void project_panel(const Turn& turn, PROJECT_ARGS) {
  SHARED(float, shared);
  u32 panels = ceil_div(h, PANEL), panel = first + turn.x, row0 = turn.y * ROWS, spans = ceil_div(d, SPAN);
  bool post = panel < panels;
  if (!post) panel -= panels;
  const act *x = post ? deter : prev, *w = post ? of_posterior : of_deter;
  Product<1> product(w + (u64)panel * spans * TILE, spans, w ? spans : 0, 1, stays);
  turn.wait();
  product.run(Plain{x + (u64)row0 * steps * d, (u64)steps * d, rows - row0, d});
  product.share(shared);
  u32 row = row0 + own_row(), column = panel * PANEL + own_column();
  u64 at = (u64)row * steps * h + column;
  bool there = row < rows && column < h;
  float sum = product.sum(shared, own_row(), 0, own_column());
  if (!post) {
    if (there) embedded[at] = rounded<act>(sum + bias[column]);
    return;
  }
  act y = rounded<act>(there ? sum + fresh(tokens + at) : 0.0f);
  if (there) posterior[at] = y;
  leave(squares, turn.x, rows, row0, number(y) * number(y));
}
KERNEL project(PROJECT_ARGS) { project_panel(Launched(), PROJECT_VALUES); }
EXPORT(project)

// The posterior's logits, from silu(norm(posterior)), of `per` groups per thread block, and a sample of each: the class
// in whose share of the unit interval a uniform number falls, or that of the largest log-probability plus Gumbel noise.
// `noise` is that of all steps, of which this is number t: uniform [.., groups] for kind 0, Gumbel [.., groups,
// classes] for 1, drawn here for 2. prev_next (null at the last step) gets a copy, zero where the next step does not
// keep the state.
#define LATENT_ARGS                                                                                                   \
  const act* w, u32 stays, const act* posterior, const float* squares, u32 slots, const float* scale,                 \
  const float* bias, const float* noise, u32 kind, DRAWS, u32 t, const float* keep_next, u32 rows, u32 steps, u32 h,  \
  u32 groups, u32 classes, u32 per, float unimix, float epsilon, act* logit, act* stoch, act* prev_next, u32* chosen, \
  float* inverse
#define LATENT_VALUES                                                                                               \
  w, stays, posterior, squares, slots, scale, bias, noise, kind, DRAWS_NAMES, t, keep_next, rows, steps, h, groups, \
  classes, per, unimix, epsilon, logit, stoch, prev_next, chosen, inverse
template <class Turn>
__device__ __forceinline__ void latent_groups(const Turn& turn, LATENT_ARGS) {
  constexpr u32 N = 4;
  SHARED(float, shared);
  __shared__ float factor[ROWS];
  float* logits = shared + WARPS * ROWS * Product<N>::WIDTH;  // [ROWS, own]
  u32 own = per * classes, panels = ceil_div(own, PANEL), spans = ceil_div(h, SPAN), row0 = turn.y * ROWS;
  w += (u64)turn.x * panels * spans * TILE, bias += turn.x * own;
  Product<N> product(w, spans, spans, min(N, panels), stays);
  turn.wait();
  add_up(squares, slots, rows, row0, factor);
  __syncthreads();
  if (threadIdx.x < ROWS) factor[threadIdx.x] = inverse_of(factor[threadIdx.x], h, epsilon);
  __syncthreads();
  if (turn.x == 0 && own_column() == 0 && row0 + own_row() < rows)
    inverse[(u64)(row0 + own_row()) * steps] = factor[own_row()];
  Normed x{Plain{posterior + (u64)row0 * steps * h, (u64)steps * h, rows - row0, h}, scale, factor};
  for (u32 panel = 0; panel < panels; panel += N) {
    if (panel > 0) product = Product<N>(w + (u64)panel * spans * TILE, spans, spans, min(N, panels - panel), stays);
    product.run(x);
    product.share(shared);
    for (u32 n = 0; n < N; n++) {
      u32 column = (panel + n) * PANEL + own_column();
      if (column >= own) continue;
      float sum = product.sum(shared, own_row(), n, own_column()) + bias[column];
      logits[own_row() * own + column] = number(rounded<act>(sum));
    }
    __syncthreads();
  }
  Part part = part_of(classes);
  u32 side_by_side = WARP / part.width, pairs = ROWS * per;  // of a row and a group
  for (u32 pair0 = threadIdx.x / WARP * side_by_side; pair0 < pairs; pair0 += WARPS * side_by_side) {
    u32 pair = min(pair0 + lane_of_warp() / part.width, pairs - 1), row = row0 + pair / per,
        group = turn.x * per + pair % per;
    const float* l = logits + pair / per * own + pair % per * classes;
    Mixture m = mixture_of(part, l, classes, unimix);
    u64 at = (u64)min(row, rows - 1) * steps * groups + group;
    u64 draw = at + (u64)t * groups;
    u32 c = kind == 1 ? perturbed_max(part, m, noise + draw * classes)
                      : quantile(part, m, kind == 0 ? __ldg(noise + draw) : DRAWS_VALUE.uniform(draw));
    if (row >= rows) continue;
    if (part.lane == 0) chosen[(u64)row * groups + group] = c;
    bool kept = prev_next && __ldg(keep_next + (u64)row * steps) != 0.0f;
    for (u32 k = part.first; k < part.last; k++) {
      act hot = rounded<act>(k == c ? 1.0f : 0.0f);
      logit[at * classes + k] = rounded<act>(l[k]);
      stoch[at * classes + k] = hot;
      if (prev_next) prev_next[at * classes + k] = kept ? hot : rounded<act>(0.0f);
    }
  }
}
KERNEL latent(LATENT_ARGS) { latent_groups(Launched(), LATENT_VALUES); }
EXPORT(latent)

// ---- All steps in one launch.

struct Forward {
  const act *of_posterior, *of_deter, *of_hidden, *of_gates, *of_logits, *of_stoch;  // packed weights
  const float *bias_deter, *scale_deter, *bias_stoch, *scale_stoch, *scale_hidden, *bias_gates, *scale_posterior,
      *bias_logits;
  const act *tokens, *actions, *dense;
  const float *keep, *noise;
  const u32* step_at;
  act *prev, *prev_stoch, *embedded, *embedded_stoch, *inputs, *hidden, *gates, *posterior, *deter, *stoch, *logit;
  float *hidden_inverse, *posterior_inverse, *hidden_squares, *posterior_squares;
  u32 *chosen, *count;
  u32 rows, steps, d, own, h, groups, classes, per, kind, key0, key1, stream, step, first, stride, width;
  u32 project_stays, hidden_stays, gates_stays, latent_stays;
  float unimix, epsilon;
};
static_assert(sizeof(Forward) == 37 * 8 + 22 * 4, "what ops/scan/forward.rs hands in");

template <u32 N>
__device__ __forceinline__ void forward_steps(const Forward& f) {
  wait_for_previous<WAIT_ALONE>();  // keeps the next kernel from starting before the end: it would take up room
  Meeting meeting(f.count);
  u32 rows = f.rows, steps = f.steps, d = f.d, own = f.own, h = f.h;
  u32 groups = f.groups, classes = f.classes, per = f.per, z = groups * classes;
  u32 tiles = ceil_div(rows, ROWS), of_h = ceil_div(h, PANEL), parts = d / own * ceil_div(ceil_div(own, PANEL), N);
  for (u32 t = 0; t <= steps; t++) {
    // First the products of the previous step's deter, including the embedding that step t starts with.
    bool later = t > 0, more = t < steps, stay = t + 1 < steps;
    u64 past = t - 1, now = t;
    const float* keep_now = more ? f.keep + now : nullptr;
    u32 first = later ? 0 : of_h;
    meeting.kernel((more ? 2 * of_h : of_h) - first, tiles, [&](const Meeting::Turn& turn) {
      project_panel(turn, f.of_posterior, f.of_deter, stay && f.project_stays, later ? f.deter + past * d : nullptr,
                    more ? f.prev + now * d : nullptr, later ? f.tokens + past * h : nullptr, f.bias_deter, rows, steps,
                    d, h, first, later ? f.posterior + past * h : nullptr, f.posterior_squares,
                    more ? f.embedded + now * h : nullptr);
    });
    if (later)
      meeting.kernel(groups / per, tiles, [&](const Meeting::Turn& turn) {
        latent_groups(turn, f.of_logits, more && f.latent_stays, f.posterior + past * h, f.posterior_squares, of_h,
                      f.scale_posterior, f.bias_logits, f.noise, f.kind, f.key0, f.key1, f.stream, f.step, f.step_at,
                      f.first, f.stride, f.width, past, keep_now, rows, steps, h, groups, classes, per, f.unimix,
                      f.epsilon, f.logit + past * z, f.stoch + past * z, more ? f.prev_stoch + now * z : nullptr,
                      f.chosen, f.posterior_inverse + past);
      });
    if (!more) break;
    meeting.kernel(rows, 1, [&](const Meeting::Turn& turn) {
      inputs_row(turn, f.embedded + now * h, f.of_stoch, later ? nullptr : f.dense, f.chosen, keep_now, f.bias_stoch,
                 f.scale_deter, f.scale_stoch, steps, h, groups, classes, f.epsilon, f.embedded_stoch + now * h,
                 f.inputs + now * 2 * h);
    });
    meeting.kernel(parts, tiles, [&](const Meeting::Turn& turn) {
      hidden_panels<N>(turn, f.of_hidden, stay && f.hidden_stays, f.prev + now * d, f.inputs + now * 2 * h,
                       f.actions + now * d, rows, steps, d, own, h, f.hidden + now * d, f.hidden_squares);
    });
    meeting.kernel(parts, tiles, [&](const Meeting::Turn& turn) {
      gates_panels<N>(turn, f.of_gates, stay && f.gates_stays, f.hidden + now * d, f.hidden_squares, parts,
                      f.scale_hidden, f.bias_gates, f.prev + now * d, stay ? f.keep + now + 1 : nullptr, rows, steps, d,
                      own, f.epsilon, f.gates + now * 3 * d, f.deter + now * d,
                      stay ? f.prev + (now + 1) * d : nullptr, f.hidden_inverse + now);
    });
  }
  meeting.wait();
}

KERNEL forward(const __grid_constant__ Forward f) { forward_steps<1>(f); }
EXPORT_MEETING(forward)
KERNEL forward_wide(const __grid_constant__ Forward f) { forward_steps<2>(f); }
EXPORT_MEETING(forward_wide)
