// What every kernel shares: the device's view of a matrix, the state of a step, loads, reductions, dependent launch.
//
// Mirrored field for field by src/backend/cuda/kernels/abi.rs.
#pragma once
#include "device/ptx.cuh"

// Tensor types, in the library's own numbering.
enum KgType : uint32_t {
    KG_F32 = 0, KG_F16, KG_BF16, KG_Q4_0, KG_Q4_1, KG_Q5_0, KG_Q5_1, KG_Q8_0, KG_Q2_K, KG_Q3_K, KG_Q4_K, KG_Q5_K, KG_Q6_K,
    KG_F16_TILED, // F16 in the order of the tensor cores
};

// The type as a constant: f(KgTyped<type>()); cudaErrorInvalidValue where there is no such type.
template <int T> struct KgTyped {
    static constexpr int type = T;
};
template <typename F> static inline cudaError_t kg_by_type(uint32_t type, F f) {
    switch (type) {
    case KG_F32: return f(KgTyped<KG_F32>());
    case KG_F16: return f(KgTyped<KG_F16>());
    case KG_BF16: return f(KgTyped<KG_BF16>());
    case KG_Q4_0: return f(KgTyped<KG_Q4_0>());
    case KG_Q4_1: return f(KgTyped<KG_Q4_1>());
    case KG_Q5_0: return f(KgTyped<KG_Q5_0>());
    case KG_Q5_1: return f(KgTyped<KG_Q5_1>());
    case KG_Q8_0: return f(KgTyped<KG_Q8_0>());
    case KG_Q2_K: return f(KgTyped<KG_Q2_K>());
    case KG_Q3_K: return f(KgTyped<KG_Q3_K>());
    case KG_Q4_K: return f(KgTyped<KG_Q4_K>());
    case KG_Q5_K: return f(KgTyped<KG_Q5_K>());
    case KG_Q6_K: return f(KgTyped<KG_Q6_K>());
    case KG_F16_TILED: return f(KgTyped<KG_F16_TILED>());
    default: return cudaErrorInvalidValue;
    }
}

// A matrix [rows, cols] in planes; block = 32 consecutive elements of a row, block b of row r has index r * cols / 32 + b.
//   float types: a = [rows, stride] elements, stride = cols rounded up to 8, zero filled
//   F16_TILED: a = [rows / 16, stride / 32] tiles of 16 rows and 32 columns (f16_mma.cuh), both rounded up, zero filled
//   a: 16 bytes a block: low four bits of element e < 16 in byte e, of e >= 16 in the high half of byte e - 16;
//      Q8_0: elements 0..15 as int8
//   b: Q8_0: 16 bytes a block, elements 16..31; Q6_K, Q3_K, Q2_K: 8 bytes a block, two bits of element 4t + i
//      in word t / 4, at bit 8 i + 2 (t % 4)
//   c: 4 bytes a block: one bit of element 4t + i at bit 8 i + t (Q5_*, Q3_K)
//   s: Q4_0 Q5_0 Q8_0: f16 d a block; Q4_1 Q5_1: f16 d, m a block; Q4_K Q5_K: two bytes, scale
//      and min, a block; Q3_K Q6_K: two int8 scales a block; Q2_K: two bytes (scale | min << 4) a block
//   d: Q3_K Q6_K: f16 a 256; Q2_K Q4_K Q5_K: f16 d, dmin a 256
struct KgMat {
    const void *a, *b, *c, *s, *d;
    uint32_t type, rows, cols, stride;
};

// The step in flight; lives on the device so that no step waits for the host.
struct KgState {
    const uint64_t *pages; // address of each page of the sequence
    float *logits;         // [n_vocab] of the slot
    int32_t token;         // the token to run
    int32_t position;      // its position
    uint32_t produced;     // tokens sampled on the device since the host last set the state
    uint32_t top_k;        // 0: all
    uint64_t seed;         // of the random numbers
    uint64_t share;        // top-p in units of 2^-32; 0: off
    uint64_t least;        // the weight that min-p asks for
    float temperature, inverse;
};

__device__ __forceinline__ float kg_half_bits(uint32_t bits) { return __half2float(__ushort_as_half((unsigned short)bits)); }

__device__ __forceinline__ float kg_warp_sum(float v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
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

// Order of floats as unsigned integers; NaN is 0.
__device__ __forceinline__ uint32_t kg_order(float f) {
    if (f != f) return 0;
    const uint32_t b = __float_as_uint(f == 0.f ? 0.f : f);
    return b & 0x80000000u ? ~b : b | 0x80000000u;
}
