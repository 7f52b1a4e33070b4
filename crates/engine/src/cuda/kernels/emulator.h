// Runs kernels on the processor, one block after the other, for tests on machines without a GPU: every thread of a
// block is a fiber, and fibers are switched where threads wait for each other. Slow, and strict about barriers: a block
// whose threads do not all reach one ends the program. Where blocks meet (meeting.cuh), each runs up to the meeting, in
// varying order, so that a turn that depends on another block's work in the same turn gives other numbers; how hardware
// makes one block's writes visible to others is not emulated. Fibers are made once, by makecontext, and then switched
// by setjmp and longjmp, which need no system calls.
#include <setjmp.h>
#include <ucontext.h>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

struct Dim { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

namespace emulator {
enum Wait { NOTHING, WARP, BLOCK, GRID, DONE };
struct Fiber {
  jmp_buf place;
  bool made = false;
  Dim thread;
  Wait wait = DONE;
  bool arrived = false;  // at a meeting
};
inline Fiber of_first[1024];
inline Fiber* fibers = of_first;  // of the current block
inline jmp_buf scheduler;
inline unsigned current = 0, count = 0;
inline Dim block, blocks;
inline void (*body)(void*);
inline void* body_args;
alignas(1024) inline char shared[256 << 10];
inline unsigned long long exchange[1024];  // one word a thread, for shuffles

inline void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "emulator: %s\n", what);
  std::abort();
}

// Operations that a thread has started and not yet waited for, in groups.
template <class T, unsigned MOST> struct Later {
  T started[MOST];
  unsigned groups[MOST], count = 0, group = 0;
  void add(const T& x) {
    must(count < MOST, "more is under way than there is room for");
    groups[count] = group, started[count++] = x;
  }
  // Executes all but the last `but` groups.
  template <class Do> void finish(unsigned but, Do act) {
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++) {
      if (groups[i] + but < group) act(started[i]);
      else groups[kept] = groups[i], started[kept++] = started[i];
    }
    count = kept;
  }
};

// Asynchronous copies of each thread to shared memory, in groups, of which it waits for all but the last few. They are
// done here when they are waited for, so that a thread that does not wait finds the old contents.
struct Copy { char* to; const void* from; unsigned bytes; };  // zeros where `from` is null
inline Later<Copy, 512> copies[1024];

// Products of warpgroups, which are also computed when they are waited for and not before: every thread adds to its own
// sums.
struct WarpgroupProduct {
  float (*sums)[4];
  unsigned down;
  unsigned long long left, right;
  bool left_across, right_across;
};
inline Later<WarpgroupProduct, 64> products[1024];

// Switches to the scheduler, until it resumes this fiber.
inline void leave(Wait kind) {
  fibers[current].wait = kind;
  if (_setjmp(fibers[current].place) == 0) _longjmp(scheduler, 1);
}
inline void wait(Wait kind) { leave(kind); }
// The body of a fiber: one thread of each block, block after block.
inline void live() {
  for (;;) {
    body(body_args);
    must(!fibers[current].arrived, "a thread ends without waiting for a meeting at which it has arrived");
    leave(DONE);
  }
}
inline void enter(unsigned i) {
  current = i;
  if (_setjmp(scheduler) != 0) return;
  if (fibers[i].made) _longjmp(fibers[i].place, 1);
  fibers[i].made = true;
  static ucontext_t first, back;
  getcontext(&first);
  first.uc_stack.ss_size = 128 << 10;
  first.uc_stack.ss_sp = std::malloc(first.uc_stack.ss_size);  // for as long as the process lives
  first.uc_link = nullptr;
  makecontext(&first, live, 0);
  swapcontext(&back, &first);
}
// Whether all threads from `start` to `end` that still run wait for `kind`.
inline bool all_wait(unsigned start, unsigned end, Wait kind) {
  bool any = false;
  for (unsigned i = start; i < end; i++) {
    if (fibers[i].wait == DONE) continue;
    if (fibers[i].wait != kind) return false;
    any = true;
  }
  return any;
}
inline void release(unsigned start, unsigned end) {
  for (unsigned i = start; i < end; i++)
    if (fibers[i].wait != DONE) fibers[i].wait = NOTHING;
}
// At a meeting a thread arrives and then waits, once each.
inline void arrive() {
  must(!fibers[current].arrived, "a thread arrives twice at a meeting");
  fibers[current].arrived = true;
}
inline void meet() {
  must(fibers[current].arrived, "a thread waits for a meeting at which it has not arrived");
  wait(GRID);
  fibers[current].arrived = false;
}
inline void begin_block() {
  for (unsigned i = 0; i < count; i++) {
    fibers[i].thread = Dim{i, 0, 0};
    fibers[i].wait = NOTHING;
    fibers[i].arrived = false;
    copies[i].count = products[i].count = 0;  // left by an earlier block
  }
}
// Runs the current block to its end, or until all of its threads wait for other blocks; returns whether it has ended.
inline bool run_block() {
  std::memset(shared, 0xff, sizeof shared);  // NaN: nobody may rely on what was there
  for (;;) {
    bool ran = false, live = false;
    for (unsigned i = 0; i < count; i++) {
      if (fibers[i].wait != NOTHING) continue;
      enter(i);
      ran = true;
    }
    for (unsigned w = 0; w < count; w += 32) {
      unsigned end = w + 32 < count ? w + 32 : count;
      if (all_wait(w, end, WARP)) release(w, end), ran = true;
    }
    if (all_wait(0, count, BLOCK)) release(0, count), ran = true;
    for (unsigned i = 0; i < count; i++) live |= fibers[i].wait != DONE;
    if (!live) return true;
    if (all_wait(0, count, GRID)) return false;
    must(ran, "the threads of a block wait for each other in different places");
  }
}

template <class... A, size_t... I>
void call(void (*f)(A...), void** args, std::index_sequence<I...>) { f(*(A*)args[I]...); }

inline void run_each() {
  for (block.z = 0; block.z < blocks.z; block.z++)
    for (block.y = 0; block.y < blocks.y; block.y++)
      for (block.x = 0; block.x < blocks.x; block.x++) {
        begin_block();
        must(run_block(), "blocks of this kernel are not meant to meet");
      }
}

// Blocks that run at the same time, each with fibers of its own.
constexpr unsigned MOST_TOGETHER = 32;  // multiprocessors of an emulated GPU
inline Fiber* of_block(unsigned i) {
  static Fiber* sets[MOST_TOGETHER];
  must(i < MOST_TOGETHER, "so many blocks cannot meet here");
  if (!sets[i]) sets[i] = new Fiber[1024];
  return sets[i];
}
inline void run_together() {
  must(blocks.y * blocks.z == 1, "blocks that meet are in a line");
  for (block = Dim{0, 0, 0}; block.x < blocks.x; block.x++) fibers = of_block(block.x), begin_block();
  for (unsigned round = 0;; round++) {
    unsigned ended = 0;
    bool backwards = round * 0x47ae147bu >> 31;  // so that in chains of five or six kernels each sees both orders
    for (unsigned i = 0; i < blocks.x; i++) {
      block.x = backwards ? blocks.x - 1 - i : i;
      fibers = of_block(block.x);
      ended += run_block();
    }
    must(ended == 0 || ended == blocks.x, "blocks wait for others that have ended");
    if (ended > 0) break;
    for (unsigned i = 0; i < blocks.x; i++) fibers = of_block(i), release(0, count);
  }
  fibers = of_first;
}

// Runs a kernel with the driver's calling convention: pointers to the arguments.
template <class... A>
void run(void (*f)(A...), void (*all)(), const unsigned* grid, unsigned threads, void** args) {
  struct Call { void (*f)(A...); void** args; } c{f, args};
  body = [](void* p) { Call* c = (Call*)p; call(c->f, c->args, std::index_sequence_for<A...>{}); };
  body_args = &c;
  count = threads;
  blocks = Dim{grid[0], grid[1], grid[2]};
  all();
}

template <class T> T shuffle(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  std::memcpy(&exchange[current], &value, sizeof(T));
  wait(WARP);
  T result;
  std::memcpy(&result, &exchange[(current & ~31u) + (from & 31u)], sizeof(T));
  wait(WARP);
  return result;
}

inline float from_bf16(unsigned bits) {
  bits <<= 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// The product of a warp's tensor core (product.cuh): the registers of all lanes are shared, and each lane computes its
// own sums.
inline void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  static unsigned as[32][32][4], bs[32][32][2];  // of each warp
  unsigned warp = current / 32, lane = current % 32;
  std::memcpy(as[warp][lane], a, sizeof a);
  std::memcpy(bs[warp][lane], b, sizeof b);
  wait(WARP);
  for (unsigned r = 0; r < 4; r++) {
    unsigned row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    float sum = 0.0f;
    for (unsigned d = 0; d < 16; d++) {
      unsigned t = d % 8 / 2, half = d / 8;
      unsigned left = as[warp][row % 8 * 4 + t][row / 8 + 2 * half], right = bs[warp][column * 4 + t][half];
      sum += from_bf16(d % 2 ? left >> 16 : left & 0xffffu) * from_bf16(d % 2 ? right >> 16 : right & 0xffffu);
    }
    c[r] += sum;
  }
  wait(WARP);
}

// Four 8x8 matrices of halves from shared memory (product.cuh): lanes 8 i to 8 i + 7 say where the rows of matrix i are,
// which must lie in different banks. With g = lane / 4 and t = lane % 4 a lane gets the pair (g, 2t) of each matrix, or of
// its transpose.
inline void ldmatrix(unsigned (&r)[4], const char* row, bool transposed) {
  static const char* all[32][32];  // of each warp
  unsigned warp = current / 32, lane = current % 32;
  must((size_t)row % 16 == 0, "ldmatrix reads rows at addresses that are multiples of 16");
  all[warp][lane] = row;
  wait(WARP);
  for (unsigned i = 0; i < 4; i++) {
    const char* const* rows = all[warp] + 8 * i;
    unsigned banks = 0, g = lane / 4, t = lane % 4;
    for (unsigned j = 0; j < 8; j++) banks |= 1u << (size_t)rows[j] / 16 % 8;
    must(banks == 0xffu, "rows of a matrix share a bank");
    if (!transposed) {
      std::memcpy(&r[i], rows[g] + 4 * t, 4);
    } else {
      unsigned short low, high;
      std::memcpy(&low, rows[2 * t] + 2 * g, 2);
      std::memcpy(&high, rows[2 * t + 1] + 2 * g, 2);
      r[i] = low | (unsigned)high << 16;
    }
  }
  wait(WARP);
}

// The number in line (row or column) `line` at depth `d` of a factor that a warpgroup multiplies (wgmma.cuh), by the
// layouts of PTX.
inline float of_factor(unsigned long long factor, bool across, unsigned line, unsigned d) {
  unsigned at = (unsigned)(factor & 0x3fff) << 4, next_64 = (unsigned)(factor >> 16 & 0x3fff) << 4;
  unsigned next_8 = (unsigned)(factor >> 32 & 0x3fff) << 4;
  if (across) at += line / 64 * next_64 + line % 64 * 2 + d / 8 * next_8 + d % 8 * 128;
  else at += line / 8 * next_8 + line % 8 * 128 + d * 2;
  at ^= (at >> 7 & 7) << 4;
  unsigned short bits;
  std::memcpy(&bits, shared + at, 2);
  return from_bf16(bits);
}
inline void start_product(float (*sums)[4], unsigned down, unsigned long long left, unsigned long long right, bool left_across,
                          bool right_across) {
  for (unsigned long long factor : {left, right}) {
    must(factor >> 62 == 1, "factors of a warpgroup are swizzled by 128 bytes");
    must((factor << 4 & 1023) < 128, "factors of a warpgroup begin in the first line of eight");
  }
  products[current].add(WarpgroupProduct{sums, down, left, right, left_across, right_across});
}
inline void multiply(const WarpgroupProduct& p) {
  unsigned warp = current / 32 % 4, lane = current % 32;
  for (unsigned j = 0; j < p.down; j++)
    for (unsigned r = 0; r < 4; r++) {
      unsigned row = 16 * warp + lane / 4 + r / 2 * 8, column = 8 * j + lane % 4 * 2 + r % 2;
      for (unsigned d = 0; d < 16; d++)
        p.sums[j][r] += of_factor(p.left, p.left_across, row, d) * of_factor(p.right, p.right_across, column, d);
    }
}
inline void end_products() { products[current].group++; }
inline void wait_for_products(unsigned but) { products[current].finish(but, multiply); }

inline void copy_later(char* to, const void* from, unsigned bytes) {
  must((size_t)to % bytes == 0 && (size_t)from % bytes == 0, "an asynchronous copy between misaligned addresses");
  copies[current].add(Copy{to, from, bytes});
}
inline void end_group() { copies[current].group++; }
inline void wait_for_groups(unsigned but) {
  copies[current].finish(but, [](const Copy& copy) {
    if (copy.from) std::memcpy(copy.to, copy.from, copy.bytes);
    else std::memset(copy.to, 0, copy.bytes);
  });
}
}  // namespace emulator

#define threadIdx (emulator::fibers[emulator::current].thread)
#define blockIdx (emulator::block)
#define gridDim (emulator::blocks)
#define blockDim (Dim{emulator::count})
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
inline void __syncthreads() { emulator::wait(emulator::BLOCK); }
inline void __syncwarp() { emulator::wait(emulator::WARP); }
template <class T> T __shfl_xor_sync(unsigned, T v, unsigned mask) { return emulator::shuffle(v, emulator::current ^ mask); }
inline unsigned __reduce_add_sync(unsigned, unsigned v) {
  emulator::exchange[emulator::current] = v;
  emulator::wait(emulator::WARP);
  unsigned first = emulator::current & ~31u, sum = 0;
  for (unsigned i = first; i < first + 32; i++) sum += (unsigned)emulator::exchange[i];
  emulator::wait(emulator::WARP);
  return sum;
}
template <class T> T __shfl_sync(unsigned, T v, unsigned lane) { return emulator::shuffle(v, lane); }
template <class T> T __shfl_up_sync(unsigned, T v, unsigned by) {
  unsigned lane = emulator::current & 31u;
  return emulator::shuffle(v, lane >= by ? lane - by : lane);
}
inline double cospi(double x) { return std::cos(3.14159265358979323846 * x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline void __threadfence() {}
inline unsigned atomicAdd(unsigned* x, unsigned by) { unsigned before = *x; *x += by; return before; }
template <class T> T __ldcg(const T* x) { return *x; }
template <class T> T __ldg(const T* x) { return *x; }
inline unsigned __float_as_uint(float x) { unsigned u; std::memcpy(&u, &x, 4); return u; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline float __uint_as_float(unsigned u) { float x; std::memcpy(&x, &u, 4); return x; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }

#define KERNEL extern "C" void
#define KERNEL_1024 extern "C" void
#define EXPORT_AS(name, all) \
  extern "C" void emulate_##name(const unsigned* grid, unsigned threads, void** args) { \
    emulator::run(name, emulator::all, grid, threads, args); \
  }
#define EXPORT(name) EXPORT_AS(name, run_each)
#define EXPORT_MEETING(name) EXPORT_AS(name, run_together)
#define SHARED(type, name) type* name = (type*)emulator::shared
