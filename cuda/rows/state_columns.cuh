// Columns of a head's state in registers: four lanes share one, of which lane l has the rows 16 a + 4 l + b, those of b = 0, 1, 2, 3 in s[a].
#pragma once
#include "device/common.cuh"

// f(row of S, the element of s that has it).
template <uint32_t N, typename F> __device__ __forceinline__ void kg_each_row(float4 (&s)[N], uint32_t lane, F f) {
#pragma unroll
    for (uint32_t a = 0; a < N; a++) {
        const uint32_t row = 16 * a + 4 * lane;
        f(row, s[a].x), f(row + 1, s[a].y), f(row + 2, s[a].z), f(row + 3, s[a].w);
    }
}

// A sum over the rows of a column: this lane's rows, then those of the four lanes.
template <uint32_t N> __device__ __forceinline__ float kg_column_sum(const float4 (&s)[N], const float *with, uint32_t lane) {
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
    for (uint32_t a = 0; a < N; a++) {
        const float4 w = *(const float4 *)(with + 16 * a + 4 * lane);
        sum.x = __fmaf_rn(s[a].x, w.x, sum.x), sum.y = __fmaf_rn(s[a].y, w.y, sum.y);
        sum.z = __fmaf_rn(s[a].z, w.z, sum.z), sum.w = __fmaf_rn(s[a].w, w.w, sum.w);
    }
    float all = __fadd_rn(__fadd_rn(sum.x, sum.y), __fadd_rn(sum.z, sum.w));
    all = __fadd_rn(all, __shfl_xor_sync(0xffffffffu, all, 1));
    return __fadd_rn(all, __shfl_xor_sync(0xffffffffu, all, 2));
}

// S *= by.
template <uint32_t N> __device__ __forceinline__ void kg_scale_column(float4 (&s)[N], float by) {
#pragma unroll
    for (uint32_t a = 0; a < N; a++) {
        s[a].x = __fmul_rn(s[a].x, by), s[a].y = __fmul_rn(s[a].y, by);
        s[a].z = __fmul_rn(s[a].z, by), s[a].w = __fmul_rn(s[a].w, by);
    }
}

// S += with * by.
template <uint32_t N> __device__ __forceinline__ void kg_add_column(float4 (&s)[N], const float *with, float by, uint32_t lane) {
#pragma unroll
    for (uint32_t a = 0; a < N; a++) {
        const float4 w = *(const float4 *)(with + 16 * a + 4 * lane);
        s[a].x = __fmaf_rn(w.x, by, s[a].x), s[a].y = __fmaf_rn(w.y, by, s[a].y);
        s[a].z = __fmaf_rn(w.z, by, s[a].z), s[a].w = __fmaf_rn(w.w, by, s[a].w);
    }
}
