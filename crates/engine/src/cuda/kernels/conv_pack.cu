// Before and after convolutions (conv.cu): packed weights, sums of partial weight gradients, pools.

#ifdef ACT_BF16

// The tap of the small kernel that tap `a` of the large one is summed into for phase `p`, in one direction: row 2 i + p of
// the upsampled image reads its row 2 i + p + a - k / 2, which is row i + (p + a - k / 2) / 2 of the small one, rounded
// down. Where `sparse`, even rows are empty: -1.
__device__ __forceinline__ int small_tap(u32 a, u32 p, u32 k, u32 small, u32 sparse) {
  u32 shifted = p + a + small / 2 * 2 - k / 2;
  return sparse && shifted % 2 == 0 ? -1 : (int)(shifted / 2);
}

// weight [k, k, ci, co] -> y [small, small, cs, padded], taps summed by phase: channel o of phase p is number p `os` + o.
KERNEL fold_phases(const float* weight, u32 k, u32 ci, u32 co, u32 small, u32 sparse, u32 cs, u32 os, u32 padded, bf16* y) {
  wait_for_previous();
  u64 at = global_thread();
  u32 j = at % padded, i = at / padded % cs, tap = at / padded / cs, phase = j / os, o = j % os;
  if (tap >= small * small) return;
  float sum = 0.0f;
  if (i < ci && o < co && phase < 4)
    for (u32 a = 0; a < k; a++)
      for (u32 b = 0; b < k; b++)
        if (small_tap(a, phase / 2, k, small, sparse) == (int)(tap / small) &&
            small_tap(b, phase % 2, k, small, sparse) == (int)(tap % small))
          sum += weight[((u64)(a * k + b) * ci + i) * co + o];
  y[at] = rounded<bf16>(sum);
}
EXPORT(fold_phases)

// weight [taps, ci, co] -> y [taps, cs, padded], padded with zeros.
KERNEL pad_taps(const float* weight, u32 taps, u32 ci, u32 co, u32 cs, u32 padded, bf16* y) {
  wait_for_previous();
  u64 at = global_thread();
  u32 o = at % padded, i = at / padded % cs, tap = at / padded / cs;
  if (tap < taps) y[at] = rounded<bf16>(i < ci && o < co ? weight[((u64)tap * ci + i) * co + o] : 0.0f);
}
EXPORT(pad_taps)

// grad [k, k, ci, co] from parts [count, small, small, cs, columns]: the sum over all parts and, where `small` is not
// zero, over the phases' taps that each weight was summed into.
KERNEL unfold_parts(const float* parts, u32 count, u32 k, u32 ci, u32 co, u32 small, u32 sparse, u32 cs, u32 columns,
                    float* grad) {
  wait_for_previous();
  u64 at = global_thread();
  u32 o = at % co, i = at / co % ci, tap = at / co / ci, side = small ? small : k;
  if (tap >= k * k) return;
  u64 all = (u64)side * side * cs * columns;
  float sum = 0.0f;
  for (u32 phase = 0; phase < (small ? 4 : 1); phase++) {
    u32 from = tap;
    if (small) {
      int a = small_tap(tap / k, phase / 2, k, small, sparse), b = small_tap(tap % k, phase % 2, k, small, sparse);
      if (a < 0 || b < 0) continue;
      from = a * small + b;
    }
    const float* place = parts + ((u64)from * cs + i) * columns + phase * (columns / 4) + o;
#pragma unroll 4
    for (u32 part = 0; part < count; part++) sum += place[part * all];
  }
  grad[at] = sum;
}
EXPORT(unfold_parts)

#else

// 2x2 max pool over the whole squares of x [n, h, w, c] -> y [n, h / 2, w / 2, c]; `ties` has a bit for each of the
// four: whether it has the maximum.
KERNEL pool(const float* x, u32 n, u32 h, u32 w, u32 c, float* y, u8* ties) {
  wait_for_previous();
  u64 i = global_thread();
  u32 channel = i % c, column = i / c % (w / 2), row = i / c / (w / 2) % (h / 2);
  u64 image = i / c / (w / 2) / (h / 2);
  if (image >= n) return;
  float four[4];
  for (u32 p = 0; p < 4; p++) four[p] = x[((image * h + 2 * row + p / 2) * w + 2 * column + p % 2) * c + channel];
  float most = fmaxf(fmaxf(four[0], four[1]), fmaxf(four[2], four[3]));
  u32 bits = 0;
  for (u32 p = 0; p < 4; p++) bits |= (four[p] == most ? 1u : 0u) << p;
  y[i] = most, ties[i] = bits;
}
EXPORT(pool)

#endif

// The pool's gradient dx [n, h, w, c] from dy [n, h / 2, w / 2, c], shared equally among tied maxima: flat regions of
// an image tie often. A thread takes four channels if c is a multiple of four, else one.
KERNEL unpool(const act* dy, const u8* ties, u32 n, u32 h, u32 w, u32 c, act* dx) {
  wait_for_previous();
  u32 wide = c % 4 == 0 ? 4 : 1;
  u64 i = global_thread() * wide;
  u32 channel = i % c, column = i / c % (w / 2), row = i / c / (w / 2) % (h / 2);
  u64 image = i / c / (w / 2) / (h / 2), start = ((image * h + 2 * row) * w + 2 * column) * c + channel;
  if (image >= n) return;
  float shares[4];
  u32 bits[4];
#pragma unroll
  for (u32 q = 0; q < 4; q++) {
    if (q >= wide) break;
    bits[q] = ties[i + q];
    u32 count = (bits[q] & 1) + (bits[q] >> 1 & 1) + (bits[q] >> 2 & 1) + (bits[q] >> 3);
    shares[q] = number(dy[i + q]) / count;
  }
#pragma unroll
  for (u32 p = 0; p < 4; p++) {
    act* to = dx + start + (p / 2 * w + p % 2) * c;
    auto share = [&](u32 q) { return bits[q] >> p & 1 ? shares[q] : 0.0f; };
    if (wide == 4) set_four(to, share(0), share(1), share(2), share(3));
    else *to = rounded<act>(share(0));
  }
}
EXPORT(unpool)
