// How the kernels of a chain (scan.cu, scan_grad.cu) follow each other: as launches of their own, or as turns of one
// launch whose blocks of threads meet where the next launch would begin.
//
// A kernel's work is a function of a turn, which says which of the kernel's thread blocks this is. By `turn.wait` it
// waits for the kernel before it, once the first weights are on their way.

// A thread block of a launch of its own.
struct Launched {
  u32 x = blockIdx.x, y = blockIdx.y;
  __device__ __forceinline__ void wait() const { wait_for_previous(); }
};

// The thread blocks of one launch, all of which run at the same time, and no more than there are multiprocessors, so
// that most GPUs have room left on each for kernels of other streams. Writes before `arrive` are visible after `wait`
// to reads past the L1 cache. Shared memory is each block's own, and does not last from one turn to the next. Every
// arrival needs its wait.
struct Meeting {
  u32* count;  // arrivals of blocks so far, zero at first; null where blocks are a cluster
  u32 all;     // arrivals that are waited for

  __device__ __forceinline__ Meeting(u32* count) : count(count), all(0) { arrive(); }

#ifdef EMULATED
  __device__ __forceinline__ void arrive() {
    emulator::arrive();
    all += gridDim.x;
    if (count && threadIdx.x == 0) ++*count;
  }
  __device__ __forceinline__ void wait() const {
    emulator::meet();
    // Blocks that go on first may arrive at the next meeting before the others have checked.
    emulator::must(!count || (*count >= all && *count <= all + gridDim.x), "a counter of arrivals was not cleared");
  }
#else
  __device__ __forceinline__ void arrive() {
    if (!count) return cluster_arrive();
    all += gridDim.x;
    __syncthreads();
    if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
  }
  __device__ __forceinline__ void wait() const {
    if (!count) return cluster_wait();
    if (threadIdx.x == 0) {
      u32 now;
      do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(count) : "memory");
      while (now < all);
    }
    __syncthreads();
  }
  static __device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#else
    __trap();
#endif
  }
  static __device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
  }
#endif

  // One of the thread blocks that a kernel would have in a launch of its own.
  struct Turn {
    const Meeting& meeting;
    u32 x, y;
    __device__ __forceinline__ void wait() const { meeting.wait(); }
  };
  // The same once it has waited.
  struct Begun {
    u32 x, y;
    __device__ __forceinline__ void wait() const {}
  };

  // Does the work of a kernel of columns x tiles thread blocks; this launch has as many, or more.
  template <class Work>
  __device__ __forceinline__ void kernel(u32 columns, u32 tiles, Work work) {
    if (blockIdx.x < columns * tiles)
      work(Turn{*this, blockIdx.x % columns, blockIdx.x / columns});
    else
      wait();
    arrive();
  }
};
