// Normalisation over the last axis fused with the activation that follows it; a warp for each row.

enum Kind : u32 { NO_NORM, RMS, LAYER };
enum Act : u32 { NONE, SILU, RELU, RELU2, GELU, MISH, TANH, ELU, SIGMOID, SOFTPLUS };

__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

__device__ __forceinline__ float activate(float x, u32 act) {
  switch (act) {
    case SILU: return x * sigmoid(x);
    case RELU: return fmaxf(x, 0.0f);
    case RELU2: return x > 0.0f ? x * x : 0.0f;
    case GELU: return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    case MISH: return x * tanhf(softplus(x));
    case TANH: return tanhf(x);
    case ELU: return x > 0.0f ? x : expm1f(x);
    case SIGMOID: return sigmoid(x);
    case SOFTPLUS: return softplus(x);
    default: return x;
  }
}

__device__ __forceinline__ float activate_slope(float x, u32 act) {
  switch (act) {
    case SILU: {
      float s = sigmoid(x);
      return s * (1.0f + x * (1.0f - s));
    }
    case RELU: return x > 0.0f ? 1.0f : 0.0f;
    case RELU2: return x > 0.0f ? 2.0f * x : 0.0f;
    case GELU: {
      float t = tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
      return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 3.0f * 0.044715f * x * x);
    }
    case MISH: {
      float t = tanhf(softplus(x));
      return t + x * (1.0f - t * t) * sigmoid(x);
    }
    case TANH: {
      float t = tanhf(x);
      return 1.0f - t * t;
    }
    case ELU: return x > 0.0f ? 1.0f : expf(x);
    case SIGMOID: {
      float s = sigmoid(x);
      return s * (1.0f - s);
    }
    case SOFTPLUS: return sigmoid(x);
    default: return 1.0f;
  }
}

// Mean and reciprocal deviation of a row, the same in all threads of the warp (official nets.py, `Norm`).
__device__ __forceinline__ float2 row_stats(const float* x, u32 n, u32 kind, float epsilon) {
  if (kind == NO_NORM) return float2{0.0f, 1.0f};
  float sum = 0.0f, squares = 0.0f;
  for (u32 j = lane_of_warp(); j < n; j += WARP) {
    sum += x[j];
    squares += x[j] * x[j];
  }
  float mean = kind == LAYER ? warp_sum(sum) / n : 0.0f;
  float variance = warp_sum(squares) / n - mean * mean;
  variance = variance < 0.0f ? 0.0f : variance;  // NaN stays
  return float2{mean, 1.0f / sqrtf(variance + epsilon)};
}

// y = act(norm(x)); null `scale` and `shift` are one and zero.
KERNEL norm_act(const float* x, const float* scale, const float* shift, u32 rows, u32 n, u32 kind, u32 act,
                float epsilon, float* y) {
  u64 row = global_warp();
  if (row >= rows) return;
  x += row * n, y += row * n;
  float2 s = row_stats(x, n, kind, epsilon);
  for (u32 j = lane_of_warp(); j < n; j += WARP) {
    float z = (x[j] - s.x) * s.y * (scale ? scale[j] : 1.0f) + (shift ? shift[j] : 0.0f);
    y[j] = activate(z, act);
  }
}
EXPORT(norm_act)

// dx, and what the parameters' gradients are the column sums of: dscale and dshift, [rows, n] each, where not null.
KERNEL norm_act_grad(const float* x, const float* scale, const float* shift, const float* dy, u32 rows, u32 n, u32 kind,
                     u32 act, float epsilon, float* dx, float* dscale, float* dshift) {
  u64 row = global_warp();
  if (row >= rows) return;
  x += row * n, dy += row * n, dx += row * n;
  float2 s = row_stats(x, n, kind, epsilon);
  float sum = 0.0f, product = 0.0f;  // of dx', and of dx' with the normalised row
  for (u32 j = lane_of_warp(); j < n; j += WARP) {
    float normed = (x[j] - s.x) * s.y, g = scale ? scale[j] : 1.0f;
    float dz = dy[j] * activate_slope(normed * g + (shift ? shift[j] : 0.0f), act);
    if (dscale) dscale[row * n + j] = dz * normed;
    if (dshift) dshift[row * n + j] = dz;
    dx[j] = dz * g;
    sum += dz * g;
    product += dz * g * normed;
  }
  if (kind == NO_NORM) return;
  sum = kind == LAYER ? warp_sum(sum) / n : 0.0f;
  // Where rounding made the variance negative it was set to zero and has no gradient.
  product = kind == RMS || s.y < 1.0f / sqrtf(epsilon) ? warp_sum(product) / n : 0.0f;
  for (u32 j = lane_of_warp(); j < n; j += WARP) dx[j] = s.y * (dx[j] - sum - (x[j] - s.x) * s.y * product);
}
EXPORT(norm_act_grad)

// silu(a) b of the halves of each row [rows, 2 n] -> [rows, n].
KERNEL swiglu(const float* x, u32 rows, u32 n, float* y) {
  u64 i = global_thread();
  if (i >= (u64)rows * n) return;
  u64 at = i / n * 2 * n + i % n;
  y[i] = x[at] * sigmoid(x[at]) * x[at + n];
}
EXPORT(swiglu)

KERNEL swiglu_grad(const float* x, const float* dy, u32 rows, u32 n, float* dx) {
  u64 i = global_thread();
  if (i >= (u64)rows * n) return;
  u64 at = i / n * 2 * n + i % n;
  float a = x[at], s = sigmoid(a);
  dx[at] = dy[i] * x[at + n] * s * (1.0f + a * (1.0f - s));
  dx[at + n] = dy[i] * a * s;
}
EXPORT(swiglu_grad)
