// From the file's blocks to the planes of abi.h, once at load.
//
// src: n whole blocks of the file's type as stored (ggml's block structs, little endian, no alignment); dst: the matrix;
// block0: index of the first block of 32 in the matrix. One thread a block of 32. Bytes moved: the weights twice.
#include "device/packed.cuh"

// Element l (0..31) of sub-block sb of the stored block at p, before the offset.
template <int T> __device__ __forceinline__ uint32_t kg_stored(const uint8_t *p, int sb, int l) {
    if constexpr (T == KG_Q4_0 || T == KG_Q4_1 || (kg_is_table(T) && T != KG_NVFP4)) {
        const uint8_t *q = p + (T == KG_Q4_1 ? 4 : T == KG_MXFP4 ? 1 : T == KG_IQ4_XS ? 8 + 16 * sb : 2);
        return l < 16 ? q[l] & 15 : q[l - 16] >> 4;
    } else if constexpr (T == KG_Q5_0 || T == KG_Q5_1) {
        const uint8_t *h = p + (T == KG_Q5_0 ? 2 : 4), *q = h + 4;
        return (l < 16 ? q[l] & 15 : q[l - 16] >> 4) | (h[l >> 3] >> (l & 7) & 1) << 4;
    } else if constexpr (T == KG_NVFP4) {
        const int e = 32 * sb + l, byte = 4 + (e >> 4) * 8 + (e & 7);
        return e & 8 ? p[byte] >> 4 : p[byte] & 15;
    } else if constexpr (T == KG_TQ1_0) {
        // A digit to the base of 3 of a byte: it comes out of the top of the byte times a power of 3.
        const int e = 32 * sb + l;
        const int byte = e < 160 ? e & 31 : e < 240 ? 32 + (e - 160) % 16 : 48 + (e & 3);
        const int digit = e < 160 ? e >> 5 : e < 240 ? (e - 160) / 16 : (e - 240) / 4;
        const uint32_t power = digit == 0 ? 1 : digit == 1 ? 3 : digit == 2 ? 9 : digit == 3 ? 27 : 81;
        return (p[byte] * power & 255u) * 3 >> 8;
    } else if constexpr (T == KG_TQ2_0) {
        return p[32 * (sb >> 2) + l] >> (2 * (sb & 3)) & 3;
    } else if constexpr (T == KG_Q2_0) {
        return p[2 + 8 * sb + (l >> 2)] >> (2 * (l & 3)) & 3;
    } else if constexpr (T == KG_Q1_0) {
        return p[2 + 4 * sb + (l >> 3)] >> (l & 7) & 1;
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
    case KG_MXFP4: return 17;
    case KG_NVFP4: return 36;
    case KG_IQ3_S: return 110;
    case KG_IQ3_XXS: return 98;
    case KG_IQ2_S: return 82;
    case KG_IQ2_XS: return 74;
    case KG_IQ2_XXS: return 66;
    case KG_IQ1_S: return 50;
    case KG_IQ1_M: return 56;
    case KG_TQ1_0: return 54;
    case KG_TQ2_0: return 66;
    case KG_Q2_0: return 18;
    case KG_Q1_0: return 18;
    default: return 0;
    }
}

// The types of code books: sub-block sb of the stored block at p to the places of block i.
template <int T> __device__ __forceinline__ void kg_repack_codes(const KgMat &m, const uint8_t *p, int sb, uint64_t i) {
    auto two = [&](int o) { return (uint32_t)p[o] | (uint32_t)p[o + 1] << 8; };
    auto four = [&](int o) { return two(o) | two(o + 2) << 16; };
    uint32_t half = two(0);
    if constexpr (T == KG_IQ3_S) {
        ((uint2 *)m.b)[i] = make_uint2(four(2 + 8 * sb), four(6 + 8 * sb));
        ((uint32_t *)m.c)[i] = four(74 + 4 * sb);
        ((uint16_t *)m.s)[i] = (uint16_t)(p[66 + sb] | (p[106 + (sb >> 1)] >> (4 * (sb & 1)) & 15u) << 8);
    } else if constexpr (T == KG_IQ3_XXS) {
        ((uint2 *)m.b)[i] = make_uint2(four(2 + 8 * sb), four(6 + 8 * sb));
        ((uint32_t *)m.c)[i] = four(66 + 4 * sb);
    } else if constexpr (T == KG_IQ2_S) {
        ((uint2 *)m.b)[i] = make_uint2(four(2 + 4 * sb), four(34 + 4 * sb));
        ((uint16_t *)m.s)[i] = (uint16_t)(p[66 + sb] | (uint32_t)p[74 + sb] << 8);
    } else if constexpr (T == KG_IQ2_XS) {
        // As IQ2_S has them: an index's ninth bit apart, all eight signs.
        uint32_t low = 0, signs = 0, high = 0;
        for (uint32_t l = 0; l < 4; l++) {
            const uint32_t q = two(2 + 8 * sb + 2 * (int)l);
            low |= (q & 255u) << 8 * l, high |= (q >> 8 & 1u) << 2 * l;
            signs |= (kg_even_signs(q >> 9, 0, 0) | kg_even_signs(q >> 9, 0, 1) << 4) << 8 * l;
        }
        ((uint2 *)m.b)[i] = make_uint2(low, signs);
        ((uint16_t *)m.s)[i] = (uint16_t)(high | (uint32_t)p[66 + sb] << 8);
    } else if constexpr (T == KG_IQ2_XXS) {
        ((uint2 *)m.b)[i] = make_uint2(four(2 + 8 * sb), four(6 + 8 * sb));
    } else if constexpr (T == KG_IQ1_S) {
        ((uint32_t *)m.c)[i] = four(2 + 4 * sb);
        ((uint16_t *)m.s)[i] = (uint16_t)two(34 + 2 * sb);
    } else {
        const uint32_t scales = two(48 + 2 * (sb >> 1)) >> (6 * (sb & 1));
        ((uint32_t *)m.c)[i] = four(4 * sb);
        ((uint32_t *)m.s)[i] = two(32 + 2 * sb) | (scales & 7u) << 16 | (scales >> 3 & 7u) << 20;
        half = p[49] >> 4 | (p[51] & 0xf0u) | (uint32_t)(p[53] >> 4) << 8 | (p[55] & 0xf0u) << 8;
    }
    if (sb == 0) ((uint16_t *)m.d)[i >> 3] = (uint16_t)half;
}

template <int T> __global__ void kg_repack(KgMat m, const uint8_t *src, uint64_t block0, uint64_t n) {
    constexpr int bytes = kg_stored_bytes(T), each = kg_row_block(T) / 32; // blocks of 32 a stored one
    uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n) return;
    const uint8_t *p = src + at / each * bytes;
    const int sb = (int)(at % each);
    const uint64_t i = block0 + at;
    if constexpr (kg_is_grid(T)) return kg_repack_codes<T>(m, p, sb, i);
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
        if constexpr (kg_has_bits(T)) bit |= ((T == KG_Q1_0 ? q : kg_has_nibbles(T) ? q >> 4 : q >> 2) & 1) << (8 * k + t);
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
    if constexpr (T == KG_Q4_0 || T == KG_Q5_0 || T == KG_Q8_0 || T == KG_IQ4_NL || T == KG_Q2_0) ((uint16_t *)m.s)[i] = (uint16_t)two_bytes(0);
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
    if constexpr (T == KG_NVFP4) {
        auto scale = [&](int s) { return p[s] == 0x7f ? 0u : p[s] & 127u; }; // 0x7f is no number, and counts as 0
        ((uint16_t *)m.s)[i] = (uint16_t)(scale(2 * sb) | scale(2 * sb + 1) << 8);
    }
    if constexpr (kg_is_ternary(T) && T != KG_Q2_0) {
        if (sb == 0) ((uint16_t *)m.d)[i / kg_d_blocks(T)] = (uint16_t)two_bytes(T == KG_TQ1_0 ? 52 : T == KG_TQ2_0 ? 64 : 0);
    }
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

// n: blocks of 32 (quantized types; whole stored blocks) or rows (float types); first: the first one's index.
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
