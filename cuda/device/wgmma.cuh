// wgmma, the matrix product of a warpgroup. In sm_90a code alone: later devices have not got it.
//
// KgWgmma<N>::mma(d, a, b, accumulate): d[64, N] (f32, N / 2 registers a thread) = a[64, 16] b[N, 16]^T (+ d), both operands
// in shared memory, K contiguous, rows of 128 bytes in the 128-byte swizzle. Thread t of the warpgroup holds, of columns
// 8 j + 2 (t % 4) and the next: d[4 j], d[4 j + 1] in row 16 (t / 32) + t % 32 / 4 and d[4 j + 2], d[4 j + 3] eight rows below.
#pragma once
#include "device/sm90.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define KG_SM90A 1

#define KG_R8(d, i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define KG_R32(d, i) KG_R8(d, i), KG_R8(d, i + 8), KG_R8(d, i + 16), KG_R8(d, i + 24)

#define KG_P0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define KG_P16 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define KG_P32 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define KG_P48 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define KG_P64 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define KG_P80 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define KG_P96 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define KG_P112 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define KG_P0_63 KG_P0 "," KG_P16 "," KG_P32 "," KG_P48
#define KG_P0_95 KG_P0_63 "," KG_P64 "," KG_P80

template <int N> struct KgWgmma;
template <> struct KgWgmma<32> {
    static __device__ __forceinline__ void mma(float (&d)[16], uint64_t a, uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %18, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {" KG_P0 "}, %16, %17, p, 1, 1, 0, 0;}"
                     : KG_R8(d, 0), KG_R8(d, 8)
                     : "l"(a), "l"(b), "r"(accumulate));
    }
};
template <> struct KgWgmma<64> {
    static __device__ __forceinline__ void mma(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" KG_P0 "," KG_P16 "}, %32, %33, p, 1, 1, 0, 0;}"
                     : KG_R32(d, 0)
                     : "l"(a), "l"(b), "r"(accumulate));
    }
};
template <> struct KgWgmma<128> {
    static __device__ __forceinline__ void mma(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" KG_P0_63 "}, %64, %65, p, 1, 1, 0, 0;}"
                     : KG_R32(d, 0), KG_R32(d, 32)
                     : "l"(a), "l"(b), "r"(accumulate));
    }
};
template <> struct KgWgmma<192> {
    static __device__ __forceinline__ void mma(float (&d)[96], uint64_t a, uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %98, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n192k16.f32.f16.f16 {" KG_P0_95 "}, %96, %97, p, 1, 1, 0, 0;}"
                     : KG_R32(d, 0), KG_R32(d, 32), KG_R32(d, 64)
                     : "l"(a), "l"(b), "r"(accumulate));
    }
};
template <> struct KgWgmma<224> {
    static __device__ __forceinline__ void mma(float (&d)[112], uint64_t a, uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %114, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n224k16.f32.f16.f16 {" KG_P0_95 "," KG_P96 "}, %112, %113, p, 1, 1, 0, 0;}"
                     : KG_R32(d, 0), KG_R32(d, 32), KG_R32(d, 64), KG_R8(d, 96), KG_R8(d, 104)
                     : "l"(a), "l"(b), "r"(accumulate));
    }
};
template <> struct KgWgmma<256> {
    static __device__ __forceinline__ void mma(float (&d)[128], uint64_t a, uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %130, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {" KG_P0_95 "," KG_P96 "," KG_P112 "}, %128, %129, p, 1, 1, 0, 0;}"
                     : KG_R32(d, 0), KG_R32(d, 32), KG_R32(d, 64), KG_R32(d, 96)
                     : "l"(a), "l"(b), "r"(accumulate));
    }
};

// The same with a[64, 16] in registers: word i of thread t holds columns 2 (t % 4) + 8 (i / 2) and the next of row
// 16 (t / 32) + t % 32 / 4 + 8 (i % 2). TURNED: b is stored [16, N], N contiguous (kg_wgmma_turned).
template <int N, int TURNED> struct KgWgmmaA;
template <int TURNED> struct KgWgmmaA<32, TURNED> {
    static __device__ __forceinline__ void mma(float (&d)[16], const uint32_t (&a)[4], uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %21, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {" KG_P0 "}, {%16,%17,%18,%19}, %20, p, 1, 1, %22;}"
                     : KG_R8(d, 0), KG_R8(d, 8)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(TURNED));
    }
};
template <int TURNED> struct KgWgmmaA<64, TURNED> {
    static __device__ __forceinline__ void mma(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" KG_P0 "," KG_P16 "}, {%32,%33,%34,%35}, %36, p, 1, 1, %38;}"
                     : KG_R32(d, 0)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(TURNED));
    }
};
template <int TURNED> struct KgWgmmaA<128, TURNED> {
    static __device__ __forceinline__ void mma(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %69, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" KG_P0_63 "}, {%64,%65,%66,%67}, %68, p, 1, 1, %70;}"
                     : KG_R32(d, 0), KG_R32(d, 32)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(TURNED));
    }
};
template <int TURNED> struct KgWgmmaA<256, TURNED> {
    static __device__ __forceinline__ void mma(float (&d)[128], const uint32_t (&a)[4], uint64_t b, int accumulate) {
        asm volatile("{.reg .pred p; setp.ne.b32 p, %133, 0;\n\t"
                     "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {" KG_P0_95 "," KG_P96 "," KG_P112 "}, {%128,%129,%130,%131}, %132, p, 1, 1, %134;}"
                     : KG_R32(d, 0), KG_R32(d, 32), KG_R32(d, 64), KG_R32(d, 96)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(TURNED));
    }
};

// Keeps the compiler from moving uses of the accumulators across the asynchronous products.
__device__ __forceinline__ void kg_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void kg_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void kg_wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// Operand in shared memory at `address` (of a 1024-byte aligned tile, plus 32 bytes for each 16 of K): eight rows every
// 1024 bytes, 128-byte swizzle.
__device__ __forceinline__ uint64_t kg_wgmma_operand(uint32_t address) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

// Operand stored [16 of K, N], N contiguous in panels of 64 columns (128 bytes) `panel` bytes apart, 128-byte swizzle.
__device__ __forceinline__ uint64_t kg_wgmma_turned(uint32_t address, uint32_t panel) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(panel >> 4) << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

// The warpgroup's share of the registers from here on.
template <int N> __device__ __forceinline__ void kg_fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ __forceinline__ void kg_more_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
#elif defined(KG_EMULATE)
#define KG_SM90A 1
#endif
