// The part of CUDA that cuda/ uses, on the host: kernels compiled by the C++ compiler, for tests on machines without a GPU.
//
// Every thread of a block is a fiber with a stack of its own; a warp runs until all its threads wait or have ended, then the next one
// that can, and a block whose threads wait for one another in vain ends the process with the kernel's place. Blocks run one after
// another, those of a cluster together; launches, copies and events happen at the call, or when a captured graph is launched. So what is
// tested is what the kernels compute, not their speed, nor races between warps, nor what a missing wait would do.
// Differences that a kernel may see: fused multiply-adds only where written, approximate functions are exact.
#pragma once
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KG_EMULATE 1
#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
static inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

// The thread that runs; every host thread has a device of its own.
extern thread_local uint3 threadIdx, blockIdx;
extern thread_local dim3 blockDim, gridDim;

namespace emulate {
struct Barrier {
    uint32_t arrived, turn, threads; // threads: that have not ended
};
struct Warp {
    Barrier barrier;
    uint32_t words[2][32 * 16];
};
// What the thread that runs has: the shared memory of its block, and its warp.
struct Here {
    char *shared;
    Warp *warp;
};
extern thread_local Here here;
constexpr uint32_t SHARED = 232448, FIXED = 32768; // bytes of a block: of a launch, of variables

// Shared memory of the block that runs: the launch's, and a variable's of its own place in the source.
static inline void *dynamic_shared() { return here.shared; }
void *static_shared(const void *place, size_t bytes);
[[noreturn]] void die(const char *what);
// The offset of an address in it, and back; `rank`: the same place in another block of the cluster.
static inline uint32_t shared_offset(const void *p) { return (uint32_t)((const char *)p - here.shared); }
static inline void *shared_address(uint32_t offset) {
    if (offset >= SHARED + FIXED) die("address outside shared memory");
    return here.shared + offset;
}
const void *shared_of(const void *mine, uint32_t rank);
uint32_t cluster_rank();

void block_barrier();
void named_barrier(uint32_t id, uint32_t threads);
// Lets others run while *p == value.
void wait_while(const uint32_t *p, uint32_t value);
void cluster_barrier();
void warp_barrier();
// All threads of a warp that have not ended give N words of 32 bits; each gets all of them, [lane][N], until its next call.
template <uint32_t N> static inline const uint32_t *exchange(const uint32_t *mine) {
    static_assert(N <= 16, "too many words");
    // Two of them in turn: who goes on early writes where nobody reads any more.
    uint32_t *words = here.warp->words[here.warp->barrier.turn & 1];
    memcpy(words + threadIdx.x % 32 * N, mine, N * 4);
    warp_barrier();
    return words;
}

// How many blocks of the next launch run together; taken once.
void next_cluster(uint32_t blocks);
uint32_t take_cluster();

// What a thread of a launch does.
struct Call {
    void (*run)(Call *);
};
template <typename F> struct Body : Call {
    F f;
    explicit Body(const F &f) : Call{[](Call *c) { ((Body *)c)->f(); }}, f(f) {}
};

// What the library has for the device's driver (driver.cpp, a libcuda.so.1 of its own) where it has images of nvcc's for others.
struct Launch {
    dim3 grid, block;
    uint32_t together; // blocks
    size_t shared_bytes;
    Call *body;
};
struct Image {
    uint64_t magic;
    void (*run)(const Launch *);
};
constexpr uint64_t MAGIC = 0x656c756d45676b;
// Makes the kernel known to the registry (src/backend/cuda/driver/registry.rs), as nvcc's objects do when they are loaded.
const void *registered(const void *kernel);
} // namespace emulate

#define __syncthreads() emulate::block_barrier()
static inline void __syncwarp() { emulate::warp_barrier(); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
[[noreturn]] static inline void __trap() { abort(); }

// Warps.
template <typename T> static inline T emulate_from(T v, uint32_t (*lane_of)(uint32_t, uint32_t), uint32_t by) {
    constexpr uint32_t WORDS = (sizeof(T) + 3) / 4;
    uint32_t w[WORDS] = {};
    memcpy(w, &v, sizeof v);
    const uint32_t *all = emulate::exchange<WORDS>(w);
    memcpy(&v, all + lane_of(threadIdx.x % 32, by) * WORDS, sizeof v);
    return v;
}
template <typename T> static inline T __shfl_xor_sync(uint32_t, T v, uint32_t by) {
    return emulate_from(v, [](uint32_t lane, uint32_t by) { return (lane ^ by) % 32; }, by);
}
template <typename T> static inline T __shfl_up_sync(uint32_t, T v, uint32_t by) {
    return emulate_from(v, [](uint32_t lane, uint32_t by) { return lane < by ? lane : lane - by; }, by);
}
template <typename T> static inline T __shfl_sync(uint32_t, T v, uint32_t lane, uint32_t width = 32) {
    auto of = [](uint32_t lane, uint32_t from) { return (lane & ~((from >> 8) - 1)) | (from & ((from >> 8) - 1)); };
    return emulate_from(v, of, lane % 32 | width << 8);
}
static inline uint32_t __reduce_max_sync(uint32_t, uint32_t v) {
    const uint32_t *all = emulate::exchange<1>(&v);
    for (int i = 0; i < 32; i++) v = all[i] > v ? all[i] : v;
    return v;
}
static inline uint32_t __ballot_sync(uint32_t, bool p) {
    uint32_t v = p, bits = 0;
    const uint32_t *all = emulate::exchange<1>(&v);
    for (int i = 0; i < 32; i++) bits |= all[i] << i;
    return bits;
}

// Atomics: one thread of a launch runs at a time, and launches on the same memory come from one host thread at a time.
static inline uint32_t atomicInc(uint32_t *p, uint32_t most) {
    const uint32_t old = *p;
    *p = old >= most ? 0 : old + 1;
    return old;
}
static inline uint32_t atomicAdd(uint32_t *p, uint32_t v) {
    const uint32_t old = *p;
    *p = old + v;
    return old;
}
static inline unsigned long long atomicMax(unsigned long long *p, unsigned long long v) {
    const unsigned long long old = *p;
    if (v > old) *p = v;
    return old;
}
static inline unsigned long long atomicExch(unsigned long long *p, unsigned long long v) {
    const unsigned long long old = *p;
    *p = v;
    return old;
}

// Arithmetic.
template <typename A, typename B> static inline auto min(A a, B b) -> decltype(a + b) { return (decltype(a + b))a < (decltype(a + b))b ? a : b; }
template <typename A, typename B> static inline auto max(A a, B b) -> decltype(a + b) { return (decltype(a + b))a > (decltype(a + b))b ? a : b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
#define __expf expf
static inline int __float2int_rn(float x) { return x != x ? 0 : (int)rintf(x); }
static inline unsigned long long __float2ull_rz(float x) { return (unsigned long long)x; }
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return (uint64_t)((unsigned __int128)a * b >> 64); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline uint32_t __float_as_uint(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __uint_as_float(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint32_t __popc(uint32_t v) { return (uint32_t)__builtin_popcount(v); }
static inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t s) {
    const __m128i bytes = _mm_cvtsi64_si128((long long)((uint64_t)b << 32 | a));
    return (uint32_t)_mm_cvtsi128_si32(_mm_shuffle_epi8(bytes, _mm_cvtsi32_si128((int)_pdep_u32(s & 0x7777, 0x0f0f0f0f))));
}
static inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
static inline void sincospif(float x, float *s, float *c) {
    const double a = 3.14159265358979323846 * (double)x;
    *s = (float)sin(a), *c = (float)cos(a);
}
template <typename T> static inline T __ldcg(const T *p) { return *p; }
