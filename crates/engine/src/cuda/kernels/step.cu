// One step of a recurrent state-space model's prior for many rows, and multilayer perceptrons, both without gradient,
// for imagination (ops/step). Rows do not depend on each other. If a model is so small that reading it takes less time
// than a few launches, a thread block takes 16 rows through all of it, in shared memory: `prior_step`, `mlp`. For
// larger ones `embed` computes the inputs of the core's first product.

#ifndef EMULATED
#undef KERNEL
#define KERNEL extern "C" __global__ void __launch_bounds__(WARP* CREW)
#endif

constexpr u32 CREW = 16;  // warps of a block: one for each of its rows
constexpr u32 LAYERS = 16;

// A layer: its weight packed as products take it (embeddings of stoch and actions: row by row), bias, and the scale of
// the norm after it.
struct Layer {
  const act* w;
  const float *bias, *scale;
};
struct Layers {
  Layer at[LAYERS];
};

// Rows in shared memory, zeroed at first: what an earlier use left beyond the current width is multiplied by zeros.
struct Shelf {
  act* x;
  u32 stride;
  __device__ __forceinline__ act* row(u32 i) const { return x + i * stride; }
  __device__ __forceinline__ Eight at(u32 i, u32 k) const { return *(const Eight*)(row(i) + k); }
};

// A row stride with neighbouring rows in different banks, and every eight numbers aligned to 16 bytes.
__device__ __forceinline__ u32 shelf_stride(u32 n) { return ceil_div(n, 64) * 64 + 32; }
__device__ __forceinline__ u32 sums_stride(u32 panels) { return panels * PANEL + 8; }

// Takes zeroed rows [ROWS, n] from `memory`, which then points behind them.
__device__ __forceinline__ Shelf shelf(char*& memory, u32 n) {
  Shelf s{(act*)memory, shelf_stride(n)};
  memory += ROWS * s.stride * sizeof(act);
  for (u32 i = threadIdx.x; i < ROWS * s.stride / 8; i += WARP * CREW) ((Eight*)s.x)[i] = Eight{};
  return s;
}

// Copies columns `from`.. of the block's rows from x [rows, n].
__device__ __forceinline__ void fill_shelf(const Shelf& s, u32 from, const act* x, u32 rows, u32 row0, u32 n) {
  u32 eights = ceil_div(n, 8);
  for (u32 i = threadIdx.x; i < ROWS * eights; i += WARP * CREW) {
    u32 row = i / eights, k = i % eights * 8;
    if (row0 + row >= rows) continue;
    Eight v = load_eight(x + (u64)(row0 + row) * n + k, (int)n - (int)k);
#ifdef ACT_BF16
    *(Eight*)(s.row(row) + from + k) = v;
#else
    for (u32 e = 0; e < 8; e++)
      if (k + e < n) s.row(row)[from + k + e] = v.pair[e];
#endif
  }
}

// How many warps split the depth of a product with this many panels.
__device__ __forceinline__ u32 split_of(u32 panels, u32 spans) { return max(1u, min(CREW / panels, spans)); }

// A warp's share of a product with a packed weight of `panels` times N panels: in parts of its depth if there are fewer
// panels than warps. When made, it starts to load the first tiles.
template <u32 N>
struct Stream {
  static constexpr u32 AHEAD = N == 1 ? 4 : 2;  // tiles, of N panels each, that are loaded ahead
  // A warp's position: a panel, a part of its depth, and a span. Found without divisions, which would be a third of all
  // instructions here.
  struct Place {
    u32 panel, part, span;
    // Moves on by `by` panels, wrapping around to the next part.
    __device__ __forceinline__ void turn(const Stream& s, u32 by) {
      panel += by;
      while (panel >= s.panels) panel -= s.panels, part++;
      span = part;
    }
    // Moves on to the next span; returns whether it belongs to another panel or part.
    __device__ __forceinline__ bool move(const Stream& s) {
      span += s.split;
      if (span < s.spans) return false;
      turn(s, CREW);
      return true;
    }
  };
  const act* w;
  u32 panels, spans, split;
  Place now, later;
#ifdef ACT_BF16
  uint4 ahead[AHEAD][N][2];

  __device__ __forceinline__ void load(u32 i) {
    if (later.part >= split) return;
    const uint4* tiles = (const uint4*)(w + (u64)later.panel * N * spans * TILE) + lane_of_warp();
#pragma unroll
    for (u32 n = 0; n < N; n++) {
      const uint4* tile = tiles + (u64)(n * spans + later.span) * (TILE / 8);
      ahead[i][n][0] = load_weights(tile);
      ahead[i][n][1] = load_weights(tile + WARP);
    }
    later.move(*this);
  }
#endif

  __device__ __forceinline__ Stream(const act* w, u32 panels, u32 spans, u32 split)
      : w(w), panels(panels), spans(spans), split(split), now{} {
    now.turn(*this, threadIdx.x / WARP);
    later = now;
#ifdef ACT_BF16
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) load(i);
#endif
  }

  // `origin(panel)` is computed once per panel, for `at(origin, row, k)`, which gives eight numbers. N sums over a part
  // of the depth are passed to `done(panel, part, row, column, sums)`.
  template <class Origin, class At, class Done>
  __device__ __forceinline__ void run(Origin origin, At at, Done done) {
    u32 start = origin(now.panel);
#ifdef ACT_BF16
    u32 g = lane_of_warp() / 4, t = lane_of_warp() % 4;
    float sums[N][2][4] = {};
    while (now.part < split) {
#pragma unroll
      for (u32 i = 0; i < AHEAD; i++) {
        if (now.part >= split) continue;
        u32 k = now.span * SPAN + 8 * t;
        Eight top = at(start, g, k), low = at(start, g + 8, k);
        u32 first[4] = {top.pair[0], low.pair[0], top.pair[1], low.pair[1]};
        u32 second[4] = {top.pair[2], low.pair[2], top.pair[3], low.pair[3]};
#pragma unroll
        for (u32 n = 0; n < N; n++)
#pragma unroll
          for (u32 half = 0; half < 2; half++) {
            const uint4& b = ahead[i][n][half];
            mma(sums[n][half], first, b.x, b.y);
            mma(sums[n][half], second, b.z, b.w);
          }
        load(i);
        Place last = now;
        if (!now.move(*this)) continue;
        start = origin(now.panel);
#pragma unroll
        for (u32 r = 0; r < 8; r++) {
          float v[N];
          for (u32 n = 0; n < N; n++) v[n] = sums[n][r / 4][r % 4], sums[n][r / 4][r % 4] = 0.0f;
          done(last.panel, last.part, g + r % 4 / 2 * 8, r / 4 * 8 + 2 * t + r % 2, v);
        }
      }
    }
#else
    u32 row = lane_of_warp() / 2, half = lane_of_warp() % 2 * 8;
    for (; now.part < split; now.turn(*this, CREW), start = origin(now.panel)) {
      u32 panel = now.panel, part = now.part;
      float sums[N][8] = {};
      for (u32 span = part; span < spans; span += split) {
        float some[N][8] = {};  // added up span by span: a long sum in one go rounds more
        for (u32 k = 0; k < SPAN; k += 8) {
          Eight x = at(start, row, span * SPAN + k);
          for (u32 n = 0; n < N; n++) {
            const float* tile = w + ((u64)(panel * N + n) * spans + span) * TILE + k * PANEL + half;
            for (u32 e = 0; e < 8; e++)
              for (u32 j = 0; j < 8; j++) some[n][j] += x.pair[e] * tile[e * PANEL + j];
          }
        }
        for (u32 n = 0; n < N; n++)
          for (u32 j = 0; j < 8; j++) sums[n][j] += some[n][j];
      }
      for (u32 j = 0; j < 8; j++) {
        float v[N];
        for (u32 n = 0; n < N; n++) v[n] = sums[n][j];
        done(panel, part, row, half + j, v);
      }
    }
#endif
  }

  // Leaves the sums of each part in shared memory [split, ROWS, ..].
  template <class Origin, class At>
  __device__ __forceinline__ void leave(Origin origin, At at, float* shared) {
    u32 stride = sums_stride(panels);
    run(origin, at, [&](u32 panel, u32 part, u32 row, u32 column, const float (&v)[N]) {
      shared[(part * ROWS + row) * stride + panel * PANEL + column] = v[0];
    });
  }
  // The same with rows that all panels share.
  __device__ __forceinline__ void leave(const Shelf& from, float* shared) {
    leave([](u32) { return 0u; }, [&](u32, u32 i, u32 k) { return from.at(i, k); }, shared);
  }
};

// The sum that a stream left for column i of a row.
__device__ __forceinline__ float sum_of(const float* shared, u32 split, u32 stride, u32 row, u32 i) {
  float x = 0.0f;
  for (u32 part = 0; part < split; part++) x += shared[(part * ROWS + row) * stride + i];
  return x;
}

// By the warp of a row: writes silu(norm(x)) of the n numbers `value(i)` to `to`.
template <class Value>
__device__ __forceinline__ void norm_row(u32 n, const float* scale, float epsilon, Value value, act* to) {
  float squares = 0.0f;
  for (u32 i = lane_of_warp(); i < n; i += WARP) {
    to[i] = rounded<act>(value(i));
    squares += number(to[i]) * number(to[i]);
  }
  float inverse = inverse_of(warp_sum(squares), n, epsilon);
  for (u32 i = lane_of_warp(); i < n; i += WARP) to[i] = rounded<act>(silu(number(to[i]) * inverse * scale[i]));
}

__device__ __forceinline__ Stream<1> stream_of(const Layer& l, u32 depth, u32 columns) {
  u32 panels = ceil_div(columns, PANEL), spans = ceil_div(depth, SPAN);
  return Stream<1>(l.w, panels, spans, split_of(panels, spans));
}

// A layer with norm and activation: rows of one shelf, by way of `sums`, to n columns of another.
__device__ __forceinline__ void dense(const Layer& l, Stream<1>& stream, const Shelf& from, float* sums, u32 n,
                                      float epsilon, const Shelf& to) {
  stream.leave(from, sums);
  __syncthreads();
  u32 row = threadIdx.x / WARP, stride = sums_stride(stream.panels);
  norm_row(
      n, l.scale, epsilon, [&](u32 i) { return sum_of(sums, stream.split, stride, row, i) + l.bias[i]; }, to.row(row));
}

// Eight neighbouring numbers of a weight's row, through the L1 cache, as they are read again and again.
__device__ __forceinline__ Eight weight_eight(const act* w, int count) {
  Eight v = {};
#ifdef ACT_BF16
  uint4 words = *(const uint4*)w;
  v.pair[0] = words.x, v.pair[1] = words.y, v.pair[2] = words.z, v.pair[3] = words.w;
#else
  for (int e = 0; e < 8; e++)
    if (e < count) v.pair[e] = w[e];
#endif
  return v;
}

// An action, scaled down to one where it is large (`bound` in elementwise.cu).
__device__ __forceinline__ float bounded(float x) { return number(rounded<act>(x / fmaxf(1.0f, fabsf(x)))); }

// The embedding of stoch by the warp of a row, before its norm: the sum of the chosen rows of the weight, to `to`.
__device__ __forceinline__ void add_chosen(const act* w, const u32* chosen, u32 groups, u32 classes, u32 h, act* to,
                                           const float* bias) {
  for (u32 n = lane_of_warp() * 8; n < h; n += WARP * 8) {
    float total[8] = {};
#pragma unroll 4
    for (u32 s = 0; s < groups; s++) {
      if (chosen[s] >= classes) continue;
      float x[8];
      unpack(weight_eight(w + ((u64)s * classes + chosen[s]) * h + n, (int)h - (int)n), x);
      for (u32 e = 0; e < 8; e++) total[e] += x[e];
    }
    for (u32 e = 0; e < 8; e++)
      if (n + e < h) to[n + e] = rounded<act>(total[e] + bias[n + e]);
  }
  __syncwarp();
}

// One step for 16 rows per block: from deter [rows, d], stoch [rows, groups classes] (one-hot or zero) and action
// [rows, a] to the next deter and a sample of the prior. Layers: embeddings of deter, stoch and actions, whose rows are
// `a_stride` apart; the core's first and its gates; `count` of the prior; its logits. Draws are as for `latent` in
// scan.cu.
KERNEL prior_step(const __grid_constant__ Layers l, const act* deter, const act* stoch, const act* action,
                  const float* noise, u32 kind, DRAWS, u32 rows, u32 d, u32 own, u32 h, u32 a, u32 a_stride, u32 groups,
                  u32 classes, u32 count, float unimix, float epsilon, act* next, act* sample) {
  wait_for_previous();
  SHARED(char, memory);
  u32 row0 = blockIdx.x * ROWS, warp = threadIdx.x / WARP, lane = lane_of_warp(), row = row0 + warp,
      z = groups * classes;
  u32 each = ceil_div(own, PANEL), panels = d / own * each, of_own = ceil_div(own, SPAN),
      of_all = of_own + ceil_div(3 * h, SPAN);
  Stream<1> product = stream_of(l.at[0], d, h);
  Shelf state = shelf(memory, d), wide = shelf(memory, d), narrow = shelf(memory, 3 * h);
  u32* chosen = (u32*)memory + warp * groups;
  float* actions = (float*)((u32*)memory + ROWS * groups) + warp * a;
  float* sums = (float*)((u32*)memory + ROWS * (groups + a));
  __syncthreads();

  // The inputs: rows of deter, the chosen classes, actions.
  fill_shelf(state, 0, deter, rows, row0, d);
  for (u32 s = lane; s < groups; s += WARP) chosen[s] = classes;
  __syncwarp();
  if (row < rows)
    for (u32 i = lane; i < z; i += WARP)
      if (fresh(stoch + (u64)row * z + i) != 0.0f) chosen[i / classes] = i % classes;
  for (u32 i = lane; i < a; i += WARP) actions[i] = row < rows ? bounded(fresh(action + (u64)row * a + i)) : 0.0f;
  __syncthreads();

  // The three embeddings, one row per warp.
  dense(l.at[0], product, state, sums, h, epsilon, narrow);
  add_chosen(l.at[1].w, chosen, groups, classes, h, narrow.row(warp) + h, l.at[1].bias);
  norm_row(h, l.at[1].scale, epsilon, [&](u32 i) { return number(narrow.row(warp)[h + i]); }, narrow.row(warp) + h);
  norm_row(
      h, l.at[2].scale, epsilon,
      [&](u32 i) {
        float x = l.at[2].bias[i];
        for (u32 j = 0; j < a; j++) x += actions[j] * number(l.at[2].w[(u64)j * a_stride + i]);
        return x;
      },
      narrow.row(warp) + 2 * h);
  product = Stream<1>(l.at[3].w, panels, of_all, split_of(panels, of_all));
  __syncthreads();

  // The core's first layer: each block of the model takes its own deter and all embeddings.
  auto block_start = [&](u32 panel) { return panel / each * own; };
  product.leave(
      block_start,
      [&](u32 start, u32 i, u32 k) {
        return k < of_own * SPAN ? state.at(i, start + k) : narrow.at(i, k - of_own * SPAN);
      },
      sums);
  __syncthreads();
  norm_row(
      d, l.at[3].scale, epsilon,
      [&](u32 i) {
        u32 column = own % PANEL == 0 ? i : i / own * each * PANEL + i % own;
        return sum_of(sums, product.split, sums_stride(panels), warp, column) + l.at[3].bias[i];
      },
      wide.row(warp));
  Stream<3> gates(l.at[4].w, panels, of_own, 1);
  __syncthreads();

  // Gates and the next deter: a thread has all three gates of its numbers.
  gates.run(block_start, [&](u32 start, u32 i, u32 k) { return wide.at(i, start + k); },
            [&](u32 panel, u32, u32 i, u32 column, const float (&v)[3]) {
              u32 block = panel / each, j = panel % each * PANEL + column;
              if (j >= own) return;
              float g[3];
              for (u32 n = 0; n < 3; n++) g[n] = number(rounded<act>(v[n] + l.at[4].bias[(block * 3 + n) * own + j]));
              act* x = state.row(i) + block * own + j;
              float u = quick_sigmoid(g[2] - 1.0f);
              *x = rounded<act>(u * quick_tanh(quick_sigmoid(g[0]) * g[1]) + (1.0f - u) * number(*x));
              if (row0 + i < rows) next[(u64)(row0 + i) * d + block * own + j] = *x;
            });
  const Layer* prior = l.at + 5;
  product = stream_of(prior[0], d, count > 0 ? h : z);
  __syncthreads();

  // The prior: its layers alternate between two shelves.
  Shelf from = state, to = narrow;
  for (u32 i = 0; i < count; i++) {
    dense(prior[i], product, from, sums, h, epsilon, to);
    product = stream_of(prior[i + 1], h, i + 1 < count ? h : z);
    __syncthreads();
    from = to, to = i % 2 == 0 ? wide : narrow;
  }
  product.leave(from, sums);
  __syncthreads();
  u32 apart = sums_stride(product.panels);
  float* logits = sums + warp * apart;
  for (u32 i = lane; i < z; i += WARP)
    logits[i] = number(rounded<act>(sum_of(sums, product.split, apart, warp, i) + prior[count].bias[i]));
  __syncwarp();
  Part part = part_of(classes);
  for (u32 first_group = 0; first_group < groups; first_group += WARP / part.width) {
    u32 group = min(first_group + lane / part.width, groups - 1);
    Mixture m = mixture_of(part, logits + group * classes, classes, unimix);
    u64 at = (u64)min(row, rows - 1) * groups + group;
    u32 c = kind == 1 ? perturbed_max(part, m, noise + at * classes)
                      : quantile(part, m, kind == 0 ? noise[at] : DRAWS_VALUE.uniform(at));
    if (row >= rows) continue;
    for (u32 k = part.first; k < part.last; k++) sample[at * classes + k] = rounded<act>(k == c ? 1.0f : 0.0f);
  }
}
EXPORT(prior_step)

// `count` layers of width n on the joined rows of x [rows, of_x] and y [rows, of_y] (of_y may be 0); or, if `begun`, on
// x [rows, n], which is the first layer's output before its norm.
KERNEL mlp(const __grid_constant__ Layers l, const act* x, const act* y, u32 rows, u32 of_x, u32 of_y, u32 n, u32 count,
           u32 begun, float epsilon, act* out) {
  wait_for_previous();
  SHARED(char, memory);
  u32 row0 = blockIdx.x * ROWS, warp = threadIdx.x / WARP, row = row0 + warp;
  Stream<1> product = stream_of(l.at[begun], of_x + of_y, n);
  Shelf first = shelf(memory, of_x + of_y), even = shelf(memory, n), odd = shelf(memory, n);
  float* sums = (float*)memory;
  __syncthreads();
  fill_shelf(first, 0, x, rows, row0, of_x);
  fill_shelf(first, of_x, y, rows, row0, of_y);
  __syncthreads();
  Shelf from = first;
  if (begun) {
    norm_row(n, l.at[0].scale, epsilon, [&](u32 i) { return number(first.row(warp)[i]); }, even.row(warp));
    __syncthreads();
    from = even;
  }
  for (u32 i = begun; i < count; i++) {
    Shelf to = i % 2 == 0 ? even : odd;
    dense(l.at[i], product, from, sums, n, epsilon, to);
    if (i + 1 < count) product = stream_of(l.at[i + 1], n, n);
    __syncthreads();
    from = to;
  }
  if (row < rows)
    for (u32 i = lane_of_warp(); i < n; i += WARP) out[(u64)row * n + i] = from.row(warp)[i];
}
EXPORT(mlp)

// For larger models: the normed embeddings of deter, stoch and action side by side, out [rows, 3 h], one block per row.
// That of deter is given, before its norm; so is that of stoch if `dense` is not null, otherwise it is the sum of the
// chosen rows of `w_stoch`.
KERNEL embed(const act* of_deter, const act* dense, const act* stoch, const act* action, const act* w_stoch,
             const act* w_action, const float* stoch_bias, const float* action_bias, const float* deter_scale,
             const float* stoch_scale, const float* action_scale, u32 h, u32 a, u32 a_stride, u32 groups, u32 classes,
             float epsilon, act* out) {
  wait_for_previous();
  SHARED(float, memory);
  __shared__ float squares[3][CREW];
  u32 eights = ceil_div(h, 8), columns = eights * 8, parts = max(1u, WARP * CREW / eights), z = groups * classes;
  float *sums = memory, *actions = sums + parts * columns;  // [parts, columns], [a]
  u32* chosen = (u32*)(actions + a);                        // [groups]
  u64 row = blockIdx.x;
  for (u32 s = threadIdx.x; s < groups; s += WARP * CREW) chosen[s] = classes;
  for (u32 i = threadIdx.x; i < a; i += WARP * CREW) actions[i] = bounded(number(action[row * a + i]));
  __syncthreads();
  if (!dense)
    for (u32 i = threadIdx.x; i < z; i += WARP * CREW)
      if (number(stoch[row * z + i]) != 0.0f) chosen[i / classes] = i % classes;
  __syncthreads();
  for (u32 i = threadIdx.x; i < eights * parts; i += WARP * CREW) {
    u32 part = i / eights, n = i % eights * 8;
    float total[8] = {};
    for (u32 s = part; s < groups; s += parts) {
      if (chosen[s] >= classes) continue;
      float x[8];
      unpack(weight_eight(w_stoch + ((u64)s * classes + chosen[s]) * h + n, (int)h - (int)n), x);
      for (u32 e = 0; e < 8; e++) total[e] += x[e];
    }
    for (u32 e = 0; e < 8; e++) sums[part * columns + n + e] = total[e];
  }
  __syncthreads();
  float square[3] = {};
  out += row * 3 * h;
  for (u32 n = threadIdx.x; n < h; n += WARP * CREW) {
    float x[3] = {number(of_deter[row * h + n]), dense ? number(dense[row * h + n]) : stoch_bias[n], action_bias[n]};
    if (!dense)
      for (u32 part = 0; part < parts; part++) x[1] += sums[part * columns + n];
    for (u32 j = 0; j < a; j++) x[2] += actions[j] * number(w_action[(u64)j * a_stride + n]);
    for (u32 i = 0; i < 3; i++) {
      act y = rounded<act>(x[i]);
      out[i * h + n] = y;  // this thread alone reads it
      square[i] += number(y) * number(y);
    }
  }
  for (u32 i = 0; i < 3; i++) {
    float sum = warp_sum(square[i]);
    if (lane_of_warp() == 0) squares[i][threadIdx.x / WARP] = sum;
  }
  __syncthreads();
  for (u32 i = 0; i < 3; i++) {
    const float* scale = i == 0 ? deter_scale : i == 1 ? stoch_scale : action_scale;
    float total = 0.0f;
    for (u32 w = 0; w < CREW; w++) total += squares[i][w];
    float inverse = inverse_of(total, h, epsilon);
    for (u32 n = threadIdx.x; n < h; n += WARP * CREW)
      out[i * h + n] = rounded<act>(silu(number(out[i * h + n]) * inverse * scale[n]));
  }
}
EXPORT(embed)
