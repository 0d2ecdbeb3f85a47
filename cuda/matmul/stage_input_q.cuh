// The input of q_batch_sm90.cuh: blocks of 32 as integers of 16 bits with a scale, x = d (256 hi + lo).
//
// nt tiles of eight sequences share a group, as many as a block of the stage takes: [blocks of 32][nt][32 lanes] of 16 bytes, of which
// lane 4 s + t has of sequence s of the tile the high bytes of elements 4 t .. + 3 and 16 + 4 t .. + 3, then the low ones; behind them
// [blocks][d f32, sum of elements 0..15 i32, of 16..31 i32][8 nt]. A group takes KG_INTS_UNIT nt x 16 bytes a block.
#pragma once
#include "matmul/gemv.cuh"

constexpr uint32_t KG_INTS_UNIT = 38;

// Four elements of sequence seq, from 4 i on, to their places. Whole warps call it; i < n4 or v is zero, and is not stored.
__device__ __forceinline__ void kg_ints_put(uint4 *split, uint32_t nt, float4 v, uint32_t i, uint32_t n4, uint32_t seq) {
    const KgInts q = kg_ints(v);
    if (i >= n4) return;
    const uint32_t blocks = n4 / 8, e = i & 7, block = i >> 3, in = seq % (8 * nt);
    uint4 *group = split + (size_t)(seq / (8 * nt)) * nt * blocks * KG_INTS_UNIT;
    uint32_t *to = (uint32_t *)(group + (block * nt + in / 8) * 32 + in % 8 * 4 + (e & 3)) + (e >> 2);
    to[0] = q.hi, to[2] = q.lo;
    uint32_t *s = (uint32_t *)(group + blocks * nt * 32) + block * 24 * nt + in;
    if (e == 0) s[0] = __float_as_uint(q.d), s[8 * nt] = (uint32_t)q.sum;
    if (e == 4) s[16 * nt] = (uint32_t)q.sum;
}
