// From the file's blocks to the planes of abi.h, once at load.
//
// src: n whole blocks of the file's type as stored (ggml's block structs, little endian, no alignment); dst: the matrix;
// block0: index of the first block of 32 in the matrix. One thread a block of 32. Bytes moved: the weights twice.
#include "device/packed.cuh"

// Element l (0..31) of sub-block sb of the stored block at p, before the offset.
template <int T> __device__ __forceinline__ uint32_t kg_stored(const uint8_t *p, int sb, int l) {
    if constexpr (T == KG_Q4_0 || T == KG_Q4_1 || kg_is_table(T)) {
        const uint8_t *q = p + (T == KG_Q4_1 ? 4 : T == KG_MXFP4 ? 1 : T == KG_IQ4_XS ? 8 + 16 * sb : 2);
        return l < 16 ? q[l] & 15 : q[l - 16] >> 4;
    } else if constexpr (T == KG_Q5_0 || T == KG_Q5_1) {
        const uint8_t *h = p + (T == KG_Q5_0 ? 2 : 4), *q = h + 4;
        return (l < 16 ? q[l] & 15 : q[l - 16] >> 4) | (h[l >> 3] >> (l & 7) & 1) << 4;
    } else if constexpr (T == KG_Q8_0) {
        return p[2 + l];
    } else if constexpr (T == KG_Q2_K) {
        return p[16 + 32 * (sb >> 2) + l] >> (2 * (sb & 3)) & 3;
    } else if constexpr (T == KG_Q3_K) {
        return (p[32 + 32 * (sb >> 2) + l] >> (2 * (sb & 3)) & 3) | (p[l] >> sb & 1) << 2;
    } else if constexpr (T == KG_Q4_K) {
        return p[16 + 32 * (sb >> 1) + l] >> (4 * (sb & 1)) & 15;
    } else if constexpr (T == KG_Q5_K) {
        return (p[48 + 32 * (sb >> 1) + l] >> (4 * (sb & 1)) & 15) | (p[16 + l] >> sb & 1) << 4;
    } else {
        int n = sb >> 2, j = sb & 3;
        return (p[64 * n + 32 * (j & 1) + l] >> (4 * (j >> 1)) & 15) | (p[128 + 32 * n + l] >> (2 * j) & 3) << 4;
    }
}

// Bytes of a block as stored.
__host__ __device__ constexpr int kg_stored_bytes(int t) {
    switch (t) {
    case KG_Q4_0: return 18;
    case KG_Q4_1: return 20;
    case KG_Q5_0: return 22;
    case KG_Q5_1: return 24;
    case KG_Q8_0: return 34;
    case KG_Q2_K: return 84;
    case KG_Q3_K: return 110;
    case KG_Q4_K: return 144;
    case KG_Q5_K: return 176;
    case KG_Q6_K: return 210;
    case KG_IQ4_NL: return 18;
    case KG_IQ4_XS: return 136;
    default: return 17; // KG_MXFP4
    }
}

template <int T> __global__ void kg_repack(KgMat m, const uint8_t *src, uint64_t block0, uint64_t n) {
    constexpr bool K = kg_is_k256(T);
    constexpr int bytes = kg_stored_bytes(T);
    uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n) return;
    const uint8_t *p = src + (K ? at >> 3 : at) * bytes;
    const int sb = K ? (int)(at & 7) : 0;
    const uint64_t i = block0 + at;
    uint32_t nib[4] = {0, 0, 0, 0}, two[2] = {0, 0}, bit = 0;
#pragma unroll
    for (int l = 0; l < 32; l++) {
        uint32_t q = kg_stored<T>(p, sb, l);
        if constexpr (T == KG_Q8_0) {
            if (l < 16) nib[l >> 2] |= q << (8 * (l & 3));
        } else if constexpr (kg_is_table(T)) {
            nib[(l & 15) >> 2] |= q << (4 * (l & 3) + (l < 16 ? 0 : 16));
        } else if constexpr (kg_has_nibbles(T)) {
            int byte = l & 15;
            nib[byte >> 2] |= (q & 15) << (8 * (byte & 3) + (l < 16 ? 0 : 4));
        }
        uint32_t t = l >> 2, k = l & 3, high = kg_has_nibbles(T) ? q >> 4 : q;
        if constexpr (kg_has_twos(T)) two[t >> 2] |= (high & 3) << (8 * k + 2 * (t & 3));
        if constexpr (kg_has_bits(T)) bit |= ((kg_has_nibbles(T) ? q >> 4 : q >> 2) & 1) << (8 * k + t);
    }
    if constexpr (kg_has_a(T)) ((uint4 *)m.a)[i] = make_uint4(nib[0], nib[1], nib[2], nib[3]);
    if constexpr (T == KG_Q8_0) {
        uint32_t w[4] = {0, 0, 0, 0};
#pragma unroll
        for (int l = 0; l < 16; l++) w[l >> 2] |= (uint32_t)p[18 + l] << (8 * (l & 3));
        ((uint4 *)m.b)[i] = make_uint4(w[0], w[1], w[2], w[3]);
    }
    if constexpr (kg_has_twos(T)) ((uint2 *)m.b)[i] = make_uint2(two[0], two[1]);
    if constexpr (kg_has_bits(T)) ((uint32_t *)m.c)[i] = bit;
    auto two_bytes = [&](int o) { return (uint32_t)p[o] | (uint32_t)p[o + 1] << 8; };
    if constexpr (T == KG_Q4_0 || T == KG_Q5_0 || T == KG_Q8_0 || T == KG_IQ4_NL) ((uint16_t *)m.s)[i] = (uint16_t)two_bytes(0);
    if constexpr (T == KG_Q4_1 || T == KG_Q5_1) ((uint32_t *)m.s)[i] = two_bytes(0) | two_bytes(2) << 16;
    if constexpr (T == KG_Q4_K || T == KG_Q5_K) {
        // Six bits of scale and of minimum a block, packed in 12 bytes.
        const uint8_t *q = p + 4;
        const int k = sb & 3;
        const uint32_t sc = sb < 4 ? q[k] & 63u : (q[k + 8] & 15u) | (q[k] >> 6) << 4;
        const uint32_t mn = sb < 4 ? q[k + 4] & 63u : (q[k + 8] >> 4) | (q[k + 4] >> 6) << 4;
        ((uint16_t *)m.s)[i] = (uint16_t)(sc | mn << 8);
        if (sb == 0) ((uint32_t *)m.d)[i >> 3] = two_bytes(0) | two_bytes(2) << 16;
    }
    // 2^(e - 128) as the upper half of its f32.
    if constexpr (T == KG_MXFP4) ((uint16_t *)m.s)[i] = (uint16_t)(p[0] < 2 ? 0x20u << p[0] : (p[0] - 1u) << 7);
    if constexpr (T == KG_IQ4_XS) {
        const uint32_t low = p[4 + (sb >> 1)] >> (4 * (sb & 1)) & 15u, high = two_bytes(2) >> (2 * sb) & 3u;
        ((uint16_t *)m.s)[i] = (uint16_t)(((low | high << 4) - 32u) & 255u);
        if (sb == 0) ((uint16_t *)m.d)[i >> 3] = (uint16_t)two_bytes(0);
    }
    if constexpr (T == KG_Q6_K) {
        ((uint16_t *)m.s)[i] = (uint16_t)two_bytes(192 + 2 * sb);
        if (sb == 0) ((uint16_t *)m.d)[i >> 3] = (uint16_t)two_bytes(208);
    }
    if constexpr (T == KG_Q3_K) {
        uint32_t s[2];
        for (int h = 0; h < 2; h++) {
            int k = 2 * sb + h;
            int low = k < 8 ? p[96 + k] & 15 : p[96 + k - 8] >> 4, high = p[96 + 8 + (k & 3)] >> (2 * (k >> 2)) & 3;
            s[h] = (uint32_t)((low | high << 4) - 32) & 255;
        }
        ((uint16_t *)m.s)[i] = (uint16_t)(s[0] | s[1] << 8);
        if (sb == 0) ((uint16_t *)m.d)[i >> 3] = (uint16_t)two_bytes(108);
    }
    if constexpr (T == KG_Q2_K) {
        ((uint16_t *)m.s)[i] = (uint16_t)two_bytes(2 * sb);
        if (sb == 0) ((uint32_t *)m.d)[i >> 3] = two_bytes(80) | two_bytes(82) << 16;
    }
}

// Float rows whose length is no multiple of 8: src [rows, cols] packed -> a [rows, stride], zero filled. size: bytes an element.
__global__ void kg_repack_rows(KgMat m, const uint8_t *src, uint64_t row0, uint64_t rows, uint32_t size) {
    uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, n = rows * m.stride;
    if (at >= n) return;
    uint64_t r = at / m.stride, c = at % m.stride;
    uint8_t *to = (uint8_t *)m.a + ((row0 + r) * m.stride + c) * size;
    for (uint32_t b = 0; b < size; b++) to[b] = c < m.cols ? src[(r * m.cols + c) * size + b] : 0;
}

// F16 rows -> tiles, 8 elements a thread; what is beyond the columns is zero already.
__global__ void kg_repack_tiles(KgMat m, const uint16_t *src, uint64_t row0, uint64_t rows) {
    const uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, per_row = (m.cols + 7) / 8;
    if (at >= rows * per_row) return;
    const uint64_t r = at / per_row;
    const uint32_t u = (uint32_t)(at % per_row);
    uint16_t *to = (uint16_t *)((uint32_t *)m.a + kg_tiled_word((uint32_t)(row0 + r), u, 0, m.stride / 8));
    for (uint32_t i = 0; i < 8 && u * 8 + i < m.cols; i++) to[i / 4 * 256 + i / 2 % 2 * 4 + i % 2] = src[r * m.cols + u * 8 + i];
}

// n: blocks of 32 (quantized types; a multiple of 8 for those of 256) or rows (float types); first: the first one's index.
KGC_API cudaError_t kgc_repack(const KgMat *m, const void *src, uint64_t first, uint64_t n, cudaStream_t stream) {
    if (n == 0) return cudaSuccess;
    const uint8_t *p = (const uint8_t *)src;
    if (m->type == KG_F16_TILED) {
        const uint64_t work = n * ((m->cols + 7) / 8);
        return kg_launch(kg_repack_tiles, dim3((unsigned)((work + 255) / 256)), dim3(256), 0, 0, stream, *m, (const uint16_t *)src, first, n);
    }
    if (!kg_is_quant((int)m->type)) {
        uint64_t work = n * m->stride;
        return kg_launch(kg_repack_rows, dim3((unsigned)((work + 255) / 256)), dim3(256), 0, 0, stream, *m, p, first, n, m->type == KG_F32 ? 4 : 2);
    }
    unsigned grid = (unsigned)((n + 127) / 128);
    return kg_by_type(m->type, [&](auto t) {
        constexpr int T = decltype(t)::type;
        if constexpr (kg_is_quant(T)) return kg_launch(kg_repack<T>, dim3(grid), dim3(128), 0, 0, stream, *m, p, first, n);
        else return cudaErrorInvalidValue;
    });
}
