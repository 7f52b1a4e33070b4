// Products by warpgroups, for Hopper: four warps together start an asynchronous product of 64 rows, whose factors the
// tensor cores read from shared memory themselves (wgmma). Large products take half the time that `mma` takes.
#ifdef WARPGROUPS

// How a block of GROUPS warpgroups computes a tile [R, C]: each takes an equal share of the rows, and all columns.
// Products of LATE steps may be under way while those of the next are started: of one step if the block is alone on its
// multiprocessor, else of none.
//
// A factor's tile is in shared memory as the tensor cores read it ("128-byte swizzle" in PTX): chunks of eight lines of
// 128 bytes, in which the i-th 16 bytes of line j are at position i ^ j. Lines run along the depth, with 64 numbers
// each, or across it; then chunks of 64 rows (or columns) follow each other, each with the whole depth.
template <u32 R, u32 C, u32 D, u32 GROUPS, u32 S, u32 L = 1>
struct GroupTile {
  static constexpr u32 ROWS = R, COLUMNS = C, TILE_DEPTH = D, STAGES = S, LATE = L;
  static constexpr u32 THREADS = 4 * WARP * GROUPS, PLANE = 4 * GROUPS, WARPS_D = 1, WARP_COLUMNS = C;
  static constexpr u32 ACROSS = R / GROUPS / 64, DOWN = C / 8;
  static constexpr u32 LEFT = 2 * R * D, STAGE = LEFT + 2 * ((C + 63) / 64 * 64) * D;  // bytes
  static constexpr bool BY_WARPGROUPS = true;
  static_assert(R % (64 * GROUPS) == 0 && D % 16 == 0, "products are of 64 rows and 16 of the depth");
  static_assert(4 * 16 * PLANE * (C + 8) <= S * STAGE, "rows of sums fit where the stages were");
  static constexpr u32 WIDTH = C;  // that is handed out at once
  static __device__ __forceinline__ u32 row_of(u32 warp, u32 i) { return warp / 4 * (R / GROUPS) + 64 * i + warp % 4 * 16; }
  static __device__ __forceinline__ u32 column_of(u32) { return 0; }
};

// PTX's "matrix descriptor" of a factor: its address, the bytes from 64 rows (or columns) to the next if its lines run
// across the depth, the bytes from eight lines to the next, and its swizzle.
__device__ __forceinline__ u64 factor_at(const char* at, u32 next_64) {
#ifdef EMULATED
  u32 address = (u32)(at - emulator::shared);
#else
  u32 address = (u32)__cvta_generic_to_shared(at);
#endif
  return (u64)((address & 0x3ffffu) >> 4) | (u64)(next_64 >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// Starts sums += left right, [64, 16] [16, 8 DOWN], whose lines run along the depth, or across it.
template <bool LEFT_ACROSS, bool RIGHT_ACROSS, u32 DOWN>
__device__ __forceinline__ void start_product(float (&sums)[DOWN][4], u64 left, u64 right) {
  static_assert(DOWN == 8 || DOWN == 12 || DOWN == 16, "64, 96 or 128 columns");
#ifdef EMULATED
  emulator::start_product(sums, DOWN, left, right, LEFT_ACROSS, RIGHT_ACROSS);
#else
#define SUMS(j) "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])
  if constexpr (DOWN == 8)
    asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, 1, 1, 1, %34, %35;"
      : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7)
      : "l"(left), "l"(right), "n"(LEFT_ACROSS), "n"(RIGHT_ACROSS));
  if constexpr (DOWN == 12)
    asm volatile(
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, "
      "%48, %49, 1, 1, 1, %50, %51;"
      : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7),
        SUMS(8), SUMS(9), SUMS(10), SUMS(11)
      : "l"(left), "l"(right), "n"(LEFT_ACROSS), "n"(RIGHT_ACROSS));
  if constexpr (DOWN == 16)
    asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, 1, 1, 1, %66, %67;"
      : SUMS(0), SUMS(1), SUMS(2), SUMS(3), SUMS(4), SUMS(5), SUMS(6), SUMS(7),
        SUMS(8), SUMS(9), SUMS(10), SUMS(11), SUMS(12), SUMS(13), SUMS(14), SUMS(15)
      : "l"(left), "l"(right), "n"(LEFT_ACROSS), "n"(RIGHT_ACROSS));
#undef SUMS
#endif
}

// Fence: makes this thread's copies to shared memory visible to the tensor cores.
__device__ __forceinline__ void show_to_tensor_cores() {
#ifndef EMULATED
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
// To be called before the first product, and after the last of a group.
__device__ __forceinline__ void begin_products() {
#ifndef EMULATED
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void end_products() {
#ifdef EMULATED
  emulator::end_products();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Waits for all groups of products of this warpgroup but the last BUT.
template <u32 BUT>
__device__ __forceinline__ void wait_for_products() {
#ifdef EMULATED
  emulator::wait_for_products(BUT);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(BUT) : "memory");
#endif
}

// `multiply_tiles` (product.cuh). While products are computed, the stage of the last finished step is filled again:
// before the products of a step are started if those of the one before may be under way, else after that.
template <class T, bool LEFT_ALONG, bool RIGHT_ALONG, class Load>
__device__ __forceinline__ void multiply_by_warpgroups(Sums<T>& sums, char* shared, u32 steps, Load load) {
  static_assert(!(LEFT_ALONG || RIGHT_ALONG) || T::TILE_DEPTH == 64, "a line along the depth has 64 numbers");
  static_assert(T::STAGES > T::LATE + 1, "a stage at least is filled ahead");
  const u32 AHEAD = T::STAGES - 1 - T::LATE, LINES = 128 * T::TILE_DEPTH;  // bytes of 64 rows, or columns, across the depth
  auto fill_stage = [&](u32 stage) { load(shared + stage * T::STAGE, shared + stage * T::STAGE + T::LEFT); };
  for (u32 step = 0; step < AHEAD; step++) {
    if (step < steps) fill_stage(step);
    end_group();
  }
  // The shuffle tells the compiler that this is the same in all threads of a warp.
  u32 group = __shfl_sync(ALL, threadIdx.x / (4 * WARP), 0), full = 0, empty = AHEAD;
  const u32 LEFT_64 = LEFT_ALONG ? 128 * 64 : LINES;  // bytes from 64 rows to the next
  for (u32 step = 0; step < steps; step++) {
    wait_for_groups<AHEAD - 1>();
    show_to_tensor_cores();
    __syncthreads();  // all copies have arrived, and no product reads the stage that is filled next
    const char* stage = shared + full * T::STAGE;
    u64 left = factor_at(stage + group * (T::ACROSS * LEFT_64), LEFT_ALONG ? 16 : LINES);
    u64 right = factor_at(stage + T::LEFT, RIGHT_ALONG ? 16 : LINES);
    auto fill_next = [&] {
      if (step + AHEAD < steps) fill_stage(empty);
      end_group();
    };
    if (T::LATE > 0) fill_next();
    begin_products();
#pragma unroll
    for (u32 d = 0; d < T::TILE_DEPTH; d += 16)
#pragma unroll
      for (u32 i = 0; i < T::ACROSS; i++) {
        u64 a = left + (i * LEFT_64 + (LEFT_ALONG ? 2 : 128) * d) / 16, b = right + (RIGHT_ALONG ? 2 : 128) * d / 16;
        start_product<!LEFT_ALONG, !RIGHT_ALONG, T::DOWN>(sums[i], a, b);
      }
    end_products();
    if (T::LATE == 0) fill_next();
    wait_for_products<T::LATE>();
    full = full + 1 == T::STAGES ? 0 : full + 1;
    empty = empty + 1 == T::STAGES ? 0 : empty + 1;
  }
  wait_for_products<0>();
#ifndef EMULATED
#pragma unroll
  for (u32 i = 0; i < T::ACROSS * T::DOWN * 4; i++)  // sums must not be read before
    asm volatile("" : "+f"(sums[i / 4 / T::DOWN][i / 4 % T::DOWN][i % 4])::"memory");
#endif
  wait_for_groups<0>();
  __syncthreads();  // the stages may be used for something else
}

#endif
