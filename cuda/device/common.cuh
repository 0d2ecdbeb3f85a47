// What every kernel shares: the type of a matrix as a constant, halves, sums over warps and blocks, the order of floats.
#pragma once
#include "abi.h"
#include "device/ptx.cuh"

// The type as a constant: f(KgTyped<type>()); cudaErrorInvalidValue where there is no such type.
template <int T> struct KgTyped {
    static constexpr int type = T;
};
template <typename F> static inline cudaError_t kg_by_type(uint32_t type, F f) {
    switch (type) {
#define KG_CASE(T) \
    case T: return f(KgTyped<T>());
        KG_TYPES(KG_CASE)
#undef KG_CASE
    default: return cudaErrorInvalidValue;
    }
}

__device__ __forceinline__ float kg_half_bits(uint32_t bits) { return __half2float(__ushort_as_half((unsigned short)bits)); }

// Two floats as halves in a word, the first one below.
__device__ __forceinline__ uint32_t kg_pack(float a, float b) {
    const __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t *>(&h);
}

// The exponent e of f32's bits with 2^e <= m < 2^(e + 1), such that both 2^e and 2^-e are normal.
__device__ __forceinline__ uint32_t kg_exponent(float m) { return min(max(__float_as_uint(m) >> 23, 1u), 253u); }
__device__ __forceinline__ float kg_power(uint32_t e) { return __uint_as_float(e << 23); }
__device__ __forceinline__ float kg_inverse_power(uint32_t e) { return __uint_as_float((254 - e) << 23); }

// Over the warp, for every lane: a butterfly.
template <typename T> __device__ __forceinline__ T kg_warp_sum(T v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
// The same of N numbers, a power of two, of which each lane gets one: number lane / (32 / N). To the bit what N butterflies give.
template <int N, int O = 16> __device__ __forceinline__ float kg_warp_sums(float (&v)[N]) {
    if constexpr (N == 1) {
#pragma unroll
        for (int o = O; o > 0; o >>= 1) v[0] += __shfl_xor_sync(0xffffffffu, v[0], o);
        return v[0];
    } else {
        const bool upper = threadIdx.x & O;
        float half[N / 2];
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            const float mine = upper ? v[N / 2 + i] : v[i], other = upper ? v[i] : v[N / 2 + i];
            half[i] = mine + __shfl_xor_sync(0xffffffffu, other, O);
        }
        return kg_warp_sums<N / 2, O / 2>(half);
    }
}
__device__ __forceinline__ float kg_warp_max(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}
// The largest magnitude of a block of 32 elements, four of which each of eight neighbouring lanes has.
__device__ __forceinline__ float kg_block32_max(float4 v) {
    float m = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
    return fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 4));
}

__device__ __forceinline__ float4 kg_add4(float4 a, float4 b) {
    return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w));
}

// Sum over the block in a fixed order; at most 16 warps. `red` has 16 floats, those beyond the block's warps zero, and is not
// used again before the next barrier.
__device__ __forceinline__ float kg_block_sum(float v, float *red) {
    v = kg_warp_sum(v);
    if ((threadIdx.x & 31) == 0) red[threadIdx.x >> 5] = v;
    __syncthreads();
    const float4 *r = (const float4 *)red;
    const float4 a = r[0], b = r[1], c = r[2], d = r[3];
    return ((a.x + a.y) + (a.z + a.w) + ((b.x + b.y) + (b.z + b.w))) + ((c.x + c.y) + (c.z + c.w) + ((d.x + d.y) + (d.z + d.w)));
}

// The same of 256 threads, warps in ascending order; `red` has 8 floats.
__device__ __forceinline__ float kg_block_sum256(float v, float *red) {
    v = kg_warp_sum(v);
    if (threadIdx.x % 32 == 0) red[threadIdx.x / 32] = v;
    __syncthreads();
    float t = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) t += red[i];
    return t;
}

// What queries at a position are multiplied by; interval is not 0.
__device__ __forceinline__ float kg_temperature(float beta, uint32_t interval, uint32_t position) {
    return 1.f + beta * logf(1.f + (float)(position / interval));
}

// Order of floats as unsigned integers; NaN is 0.
__device__ __forceinline__ uint32_t kg_order(float f) {
    if (f != f) return 0;
    const uint32_t b = __float_as_uint(f == 0.f ? 0.f : f);
    return b & 0x80000000u ? ~b : b | 0x80000000u;
}
