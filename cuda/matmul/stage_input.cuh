// The input of stages on tensor cores, staged for them: blocks of 32 elements as two halves and a scale, or as integers.
//
// The input of several sequences: nt tiles of eight share a group, as many as a block of the stage takes.
//   f16: [blocks of 32][nt][hi, lo][32 lanes] of 16 bytes, then scales [blocks][8 nt] f32; lane 4 s + t has elements 8 t .. + 7 of
//        sequence s of the tile. x = scale (hi + lo). A group takes KG_INPUT_F16_WORDS nt x 16 bytes a block.
//   q:   [blocks of 32][nt][32 lanes] of 16 bytes, of which lane 4 s + t has of sequence s of the tile the integers of elements 4 t and
//        4 t + 2, 4 t + 1 and 4 t + 3, and those of 16 elements later, as halves; behind them [blocks][nt] of 24 floats: for columns 2 t and
//        2 t + 1 their scales d and their sums of all elements, t ascending, then the eight sums of elements 16..31. x = d times the integer.
//        A group takes KG_INPUT_Q_WORDS nt x 16 bytes a block.
#pragma once
#include "device/common.cuh"

// Four elements of a block of 32, whose others are in the neighbouring seven lanes, as hi and lo; the block's scale. Whole warps.
__device__ __forceinline__ float kg_stage_f16(float4 v, uint2 &hi, uint2 &lo) {
    const uint32_t e = kg_exponent(kg_block32_max(v));
    const float inv = kg_inverse_power(e);
    v.x *= inv, v.y *= inv, v.z *= inv, v.w *= inv;
    hi = make_uint2(kg_pack(v.x, v.y), kg_pack(v.z, v.w));
    const float2 a = __half22float2(*reinterpret_cast<const __half2 *>(&hi.x)), b = __half22float2(*reinterpret_cast<const __half2 *>(&hi.y));
    lo = make_uint2(kg_pack(v.x - a.x, v.y - a.y), kg_pack(v.z - b.x, v.w - b.y));
    return kg_power(e);
}

// Four elements of sequence seq, from 4 i on, to their places in `split`. Whole warps call it; nothing is stored beyond n4.
__device__ __forceinline__ void kg_stage_f16_put(uint4 *split, uint32_t nt, float4 v, uint32_t i, uint32_t n4, uint32_t seq) {
    uint2 hi, lo;
    const float s = kg_stage_f16(v, hi, lo);
    if (i >= n4) return;
    const uint32_t blocks = n4 / 8, j = i & 7, in = seq % (8 * nt);
    uint4 *group = split + (size_t)(seq / (8 * nt)) * nt * blocks * KG_INPUT_F16_WORDS;
    uint2 *half = (uint2 *)(group + ((i >> 3) * nt + in / 8) * 64 + in % 8 * 4 + j / 2) + (j & 1);
    half[0] = hi, half[64] = lo;
    if (j == 0) ((float *)(group + blocks * nt * 64))[(i >> 3) * 8 * nt + in] = s;
}

// The largest integer of an input: halves hold all up to it, and the sum of 32 products with bytes is exact in f32.
constexpr float KG_INPUT_MOST = 2047.f;

// Four elements of a block of 32, whose others are in the neighbouring seven lanes, as integers; the sum over 16 of them, the block's scale.
struct KgStagedQ {
    int4 q;
    uint32_t hi, lo; // a byte of each element
    int sum;
    float d;
};
__device__ __forceinline__ KgStagedQ kg_stage_q(float4 v) {
    const float m = kg_block32_max(v);
    const float inv = m > 0.f ? KG_INPUT_MOST / m : 0.f;
    const int q0 = __float2int_rn(v.x * inv), q1 = __float2int_rn(v.y * inv), q2 = __float2int_rn(v.z * inv), q3 = __float2int_rn(v.w * inv);
    KgStagedQ q;
    q.sum = q0 + q1 + q2 + q3;
    q.q = make_int4(q0, q1, q2, q3);
    q.sum += __shfl_xor_sync(0xffffffffu, q.sum, 1);
    q.sum += __shfl_xor_sync(0xffffffffu, q.sum, 2);
    // Bytes 0 and 1 of each: lo and hi.
    const uint32_t a = __byte_perm(q0, q1, 0x5140), b = __byte_perm(q2, q3, 0x5140);
    q.hi = __byte_perm(a, b, 0x7632), q.lo = __byte_perm(a, b, 0x5410);
    q.d = m * (1.f / KG_INPUT_MOST);
    return q;
}

// Four elements of sequence seq, from 4 i on, to their places. Whole warps call it; i < n4 or v is zero, and is not stored.
__device__ __forceinline__ void kg_stage_q_put(uint4 *split, uint32_t nt, float4 v, uint32_t i, uint32_t n4, uint32_t seq) {
    const KgStagedQ q = kg_stage_q(v);
    const int other = __shfl_xor_sync(0xffffffffu, q.sum, 4);
    if (i >= n4) return;
    const uint32_t blocks = n4 / 8, e = i & 7, block = i >> 3, in = seq % (8 * nt);
    uint4 *group = split + (size_t)(seq / (8 * nt)) * nt * blocks * KG_INPUT_Q_WORDS;
    uint2 *to = (uint2 *)(group + (block * nt + in / 8) * 32 + in % 8 * 4 + (e & 3)) + (e >> 2);
    *to = make_uint2(kg_pack((float)q.q.x, (float)q.q.z), kg_pack((float)q.q.y, (float)q.q.w));
    float *s = (float *)(group + blocks * nt * 32) + (block * nt + in / 8) * 24, *own = s + in % 8 / 2 * 4 + in % 2;
    if (e == 0) own[0] = q.d, own[2] = (float)(q.sum + other), s[16 + in % 8] = (float)other;
}
