// Random numbers as tensors (philox.cuh).

KERNEL uniform(DRAWS, u32 n, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < n) y[i] = DRAWS_VALUE.uniform(i);
}
EXPORT(uniform)

KERNEL normal(DRAWS, u32 n, float* y) {
  wait_for_previous();
  u64 i = global_thread();
  if (i < n) y[i] = DRAWS_VALUE.normal(i);
}
EXPORT(normal)
