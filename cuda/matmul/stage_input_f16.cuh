// The input of tiles (f16_mma.cuh): blocks of 32 as two halves and a scale.
//
// The tiles of several sequences: nt tiles of eight share a group, as many as a block of the stage takes: [blocks of 32][nt][hi, lo][32 lanes]
// of 16 bytes, then scales [blocks][8 nt] f32; lane 4 s + t has elements 8 t .. + 7 of sequence s of the tile. A group takes
// 66 nt x 16 bytes a block.
#pragma once
#include "device/common.cuh"

__device__ __forceinline__ uint32_t kg_two_halves(float a, float b) {
    const __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t *>(&h);
}
// Four elements of a block of 32, whose others are in the neighbouring seven lanes, as hi and lo; the block's scale. Whole warps.
__device__ __forceinline__ float kg_tile_split(float4 v, uint2 &hi, uint2 &lo) {
    float m = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 4));
    // 2^e <= m < 2^(e + 1), and both 2^e and 2^-e are normal.
    const uint32_t e = min(max(__float_as_uint(m) >> 23, 1u), 253u);
    const float inv = __uint_as_float((254 - e) << 23);
    v.x *= inv, v.y *= inv, v.z *= inv, v.w *= inv;
    hi = make_uint2(kg_two_halves(v.x, v.y), kg_two_halves(v.z, v.w));
    const float2 a = __half22float2(*reinterpret_cast<const __half2 *>(&hi.x)), b = __half22float2(*reinterpret_cast<const __half2 *>(&hi.y));
    lo = make_uint2(kg_two_halves(v.x - a.x, v.y - a.y), kg_two_halves(v.z - b.x, v.w - b.y));
    return __uint_as_float(e << 23);
}

// Four elements of sequence seq, from 4 i on, to their places in `split`. Whole warps call it; nothing is stored beyond n4.
__device__ __forceinline__ void kg_split_put(uint4 *split, uint32_t nt, float4 v, uint32_t i, uint32_t n4, uint32_t seq) {
    uint2 hi, lo;
    const float s = kg_tile_split(v, hi, lo);
    if (i >= n4) return;
    const uint32_t blocks = n4 / 8, j = i & 7, in = seq % (8 * nt);
    uint4 *group = split + (size_t)(seq / (8 * nt)) * nt * blocks * 66;
    uint2 *half = (uint2 *)(group + ((i >> 3) * nt + in / 8) * 64 + in % 8 * 4 + j / 2) + (j & 1);
    half[0] = hi, half[64] = lo;
    if (j == 0) ((float *)(group + blocks * nt * 64))[(i >> 3) * 8 * nt + in] = s;
}
