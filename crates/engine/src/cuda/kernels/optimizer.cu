// The optimizer step of one tensor (ops/optimizer.rs), cut into slices of which a block of 256 threads takes one each.
// Norms are added up in float64, slice by slice, in a fixed order.

// The sum over the threads of a block, in thread 0.
__device__ __forceinline__ double block_sum(double x) {
  __shared__ double sums[32];
  x = warp_sum_double(x);
  __syncthreads();  // whoever read the sums before is done
  if (lane_of_warp() == 0) sums[threadIdx.x / WARP] = x;
  __syncthreads();
  if (threadIdx.x > 0) return 0.0;
  for (u32 w = 1; w < blockDim.x / WARP; w++) x += sums[w];
  return x;
}

// The sum of `parts`, the same in all threads of a block.
__device__ __forceinline__ double total(const double* x, u32 parts) {
  __shared__ double result;
  double sum = 0.0;
  for (u32 i = threadIdx.x; i < parts; i += blockDim.x) sum += x[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) result = sum;
  __syncthreads();
  sum = result;
  __syncthreads();
  return sum;
}

// Sums of squares of each slice: of gradients in out [parts], of parameters after them.
KERNEL norms(const float* grad, const float* param, u32 n, u32 slice, double* out) {
  u32 first = blockIdx.x * slice, last = min(first + slice, n);
  float of_grad = 0.0f, of_param = 0.0f;
  for (u32 i = first + threadIdx.x; i < last; i += blockDim.x) {
    of_grad += grad[i] * grad[i];
    of_param += param[i] * param[i];
  }
  double a = block_sum(of_grad), b = block_sum(of_param);
  if (threadIdx.x > 0) return;
  out[blockIdx.x] = a;
  out[gridDim.x + blockIdx.x] = b;
}
EXPORT(norms)

// Updates a slice for each block and leaves the squares of changes and of parameters in sums [2, parts].
KERNEL update(float* param, float* grad, float* rms, float* momentum, u32 n, u32 slice, const double* norms, double* sums,
              float lr, float agc, float smallest, float eps, float beta1, float beta2, float new1, float new2,
              float correct1, float correct2, u32 nesterov, float decay) {
  double of_grad = total(norms, gridDim.x), of_param = total(norms + gridDim.x, gridDim.x);
  float clip = 1.0f;
  if (agc > 0.0f) clip = 1.0f / fmaxf((float)sqrt(of_grad) / (agc * fmaxf((float)sqrt(of_param), smallest)), 1.0f);
  u32 first = blockIdx.x * slice, last = min(first + slice, n);
  float changes = 0.0f, squares = 0.0f;
  for (u32 i = first + threadIdx.x; i < last; i += blockDim.x) {
    float g = grad[i] * clip, v = beta2 * rms[i] + new2 * (g * g);
    grad[i] = g;
    rms[i] = v;
    float scaled = g / (sqrtf(v / correct2) + eps), m = beta1 * momentum[i] + new1 * scaled;
    momentum[i] = m;
    if (nesterov) m = beta1 * m + new1 * scaled;
    float change = -lr * (m / correct1 + decay * param[i]), after = param[i] + change;
    param[i] = after;
    changes += change * change;
    squares += after * after;
  }
  double a = block_sum(changes), b = block_sum(squares);
  if (threadIdx.x > 0) return;
  sums[blockIdx.x] = a;
  sums[gridDim.x + blockIdx.x] = b;
}
EXPORT(update)

// stats [3]: sums of squares of gradient, change and parameter over all slices; by one block.
KERNEL statistics(const double* norms, const double* sums, u32 parts, double* stats) {
  double grad = total(norms, parts), change = total(sums, parts), param = total(sums + parts, parts);
  if (threadIdx.x > 0) return;
  stats[0] = grad;
  stats[1] = change;
  stats[2] = param;
}
EXPORT(statistics)

// target = mix source + (1 - mix) target
KERNEL ema(const float* source, float* target, float mix, u32 n) {
  u64 i = global_thread();
  if (i < n) target[i] = mix * source[i] + (1.0f - mix) * target[i];
}
EXPORT(ema)

// How many numbers of each slice are not finite.
KERNEL count_bad(const float* x, u32 n, u32 slice, float* counts) {
  u32 first = blockIdx.x * slice, last = min(first + slice, n);
  double bad = 0.0;
  for (u32 i = first + threadIdx.x; i < last; i += blockDim.x) bad += fabsf(x[i]) <= 3.4028234e38f ? 0.0 : 1.0;
  bad = block_sum(bad);
  if (threadIdx.x == 0) counts[blockIdx.x] = bad;
}
EXPORT(count_bad)
