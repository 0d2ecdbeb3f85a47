// One unit of a weight row in registers: load it, take its dot product with the input, or expand it.
//
// A unit is 32 elements of the quantized types and 8 of the float types. The input of quantized types is held as integers of 12
// bits with one scale a block of 32 (x = d (256 hi + lo)), so that products are exact in integers: dp4a twice a word.
// Reference: src/backend/reference (dequantization formulas of the GGUF specification).
#pragma once
#include "device/common.cuh"
#include "device/grids.cuh"
#include "device/packed_float.cuh"

#define KG_EQUALS(T) || t == T
constexpr __host__ __device__ bool kg_is_q32(int t) { return false KG_Q32_TYPES(KG_EQUALS); }
constexpr __host__ __device__ bool kg_is_table(int t) { return false KG_TABLE_TYPES(KG_EQUALS); }
constexpr __host__ __device__ bool kg_is_k256(int t) { return false KG_K256_TYPES(KG_EQUALS); }
constexpr __host__ __device__ bool kg_is_grid(int t) { return false KG_GRID_TYPES(KG_EQUALS); }
constexpr __host__ __device__ bool kg_is_ternary(int t) { return false KG_TERNARY_TYPES(KG_EQUALS); }
#undef KG_EQUALS
constexpr __host__ __device__ bool kg_is_quant(int t) { return kg_is_q32(t) || kg_is_k256(t) || kg_is_table(t) || kg_is_grid(t) || kg_is_ternary(t); }
// Elements of a stored block, of which rows are whole ones.
constexpr __host__ __device__ int kg_row_block(int t) {
    return !kg_is_quant(t) ? 1 : kg_is_q32(t) || t == KG_IQ4_NL || t == KG_MXFP4 ? 32 : t == KG_NVFP4 || t == KG_Q2_0 ? 64 : t == KG_Q1_0 ? 128 : 256;
}
constexpr __host__ __device__ bool kg_has_nibbles(int t) { return (kg_is_q32(t) || kg_is_k256(t)) && t != KG_Q8_0 && t != KG_Q2_K && t != KG_Q3_K; }
// Whether there is plane a; whether the bytes of four elements are signed.
constexpr __host__ __device__ bool kg_has_a(int t) { return kg_has_nibbles(t) || kg_is_table(t) || t == KG_Q8_0; }
constexpr __host__ __device__ bool kg_is_signed(int t) { return kg_is_table(t) || kg_is_grid(t) || t == KG_Q8_0; }
constexpr __host__ __device__ bool kg_has_twos(int t) {
    return t == KG_Q2_K || t == KG_Q3_K || t == KG_Q6_K || t == KG_TQ1_0 || t == KG_TQ2_0 || t == KG_Q2_0;
}
constexpr __host__ __device__ bool kg_has_bits(int t) { return t == KG_Q5_0 || t == KG_Q5_1 || t == KG_Q5_K || t == KG_Q3_K || t == KG_Q1_0; }
// Where such a bit goes: above the nibbles, above the two, above the nothing that makes -1 and 1 of it.
constexpr __host__ __device__ int kg_bit_place(int t) { return t == KG_Q1_0 ? 1 : t == KG_Q3_K ? 2 : 4; }
constexpr __host__ __device__ bool kg_has_half_scales(int t) {
    return t == KG_Q2_K || t == KG_Q3_K || t == KG_Q6_K || t == KG_NVFP4 || t == KG_IQ2_S || t == KG_IQ2_XS || t == KG_IQ1_M;
}
constexpr __host__ __device__ bool kg_has_least(int t) { return t == KG_Q4_1 || t == KG_Q5_1 || t == KG_Q2_K || t == KG_Q4_K || t == KG_Q5_K; }
constexpr __host__ __device__ int kg_offset(int t) {
    return t == KG_Q4_0 ? 8 : t == KG_Q5_0 ? 16 : t == KG_Q3_K ? 4 : t == KG_Q6_K ? 32 : kg_is_ternary(t) ? 1 : 0;
}

// Whether plane b has 8 bytes a block; whether there is plane c.
constexpr __host__ __device__ bool kg_has_b8(int t) { return kg_has_twos(t) || (kg_is_grid(t) && t != KG_IQ1_S && t != KG_IQ1_M); }
constexpr __host__ __device__ bool kg_has_c(int t) { return kg_has_bits(t) || t == KG_IQ3_S || t == KG_IQ3_XXS || t == KG_IQ1_S || t == KG_IQ1_M; }
// Bytes of planes s, a block, and d, for kg_d_blocks of them.
constexpr __host__ __device__ int kg_s_bytes(int t) {
    if (t == KG_Q4_1 || t == KG_Q5_1 || t == KG_IQ1_M) return 4;
    return t == KG_IQ3_XXS || t == KG_IQ2_XXS || t == KG_TQ1_0 || t == KG_TQ2_0 || t == KG_Q1_0 ? 0 : 2;
}
constexpr __host__ __device__ int kg_d_bytes(int t) {
    if (t == KG_Q2_K || t == KG_Q4_K || t == KG_Q5_K) return 4;
    return t == KG_Q3_K || t == KG_Q6_K || t == KG_IQ4_XS || kg_is_grid(t) || (kg_is_ternary(t) && t != KG_Q2_0) ? 2 : 0;
}
constexpr __host__ __device__ int kg_d_blocks(int t) { return t == KG_Q1_0 ? 4 : 8; }

// Four bytes of a table of sixteen, by the low four nibbles of q.
__device__ __forceinline__ uint32_t kg_table16(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3, uint32_t q) {
    const uint32_t which = q & 0x7777u, low = __byte_perm(w0, w1, which), high = __byte_perm(w2, w3, which);
    return __byte_perm(low, high, 0x3210u | (q & 0x8888u) >> 1);
}
// The levels that four nibbles stand for: IQ4's, or twice an E2M1 each (src/gguf/types.rs has them as numbers).
template <int T> __device__ __forceinline__ uint32_t kg_levels(uint32_t q) {
    if constexpr (T == KG_MXFP4 || T == KG_NVFP4) return kg_table16(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu, q);
    else return kg_table16(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u, q);
}

// The same as two words whose bytes are to be added, in fewer instructions: one has the levels below zero, of the nibbles on one side of 8,
// and 0 or, as the byte selection has it, -1 for the others, and one these, by as much more, and 0 for the first. q, other: the nibbles
// and the nibbles with their upper bits turned over.
template <int T> __device__ __forceinline__ uint2 kg_levels_apart(uint32_t q, uint32_t other) {
    if constexpr (T == KG_MXFP4 || T == KG_NVFP4) return make_uint2(kg_bytes(0xfdfeff00u, 0xf4f8fafcu, other), kg_bytes(0x04030200u, 0x0d090705u, q));
    else return make_uint2(kg_bytes(0xbfad9881u, 0xf6eaddcfu, q), kg_bytes(0x271a0e02u, 0x725a4636u, other));
}

// What a unit of a type of code books has in place of elements: its words of the planes.
struct KgCodes {
    uint32_t b0, b1, c, s;
};
// An entry of a type's code book: a code in each four bits.
template <int T> __device__ __forceinline__ uint32_t kg_grid(uint32_t at) {
    if constexpr (T == KG_IQ2_XXS) {
        static constexpr uint32_t book[256] = {KG_GRID_IQ2_XXS};
        return book[at];
    } else if constexpr (T == KG_IQ2_XS) {
        static constexpr uint32_t book[512] = {KG_GRID_IQ2_XS};
        return book[at];
    } else if constexpr (T == KG_IQ2_S) {
        static constexpr uint32_t book[1024] = {KG_GRID_IQ2_S};
        return book[at];
    } else if constexpr (T == KG_IQ3_XXS) {
        static constexpr uint16_t book[256] = {KG_GRID_IQ3_XXS};
        return book[at];
    } else if constexpr (T == KG_IQ3_S) {
        static constexpr uint16_t book[512] = {KG_GRID_IQ3_S};
        return book[at];
    } else {
        static constexpr uint32_t book[2048] = {KG_GRID_IQ1_S};
        return book[at];
    }
}
// The signs of eight elements of which seven are stored: the eighth makes their number even. Of those from 4 h on.
__device__ __forceinline__ uint32_t kg_even_signs(uint32_t word, uint32_t l, uint32_t h) {
    const uint32_t seven = word >> 7 * l & 127u;
    return (seven | (__popc(seven) & 1u) << 7) >> 4 * h & 15u;
}
// Four bits, each at the bottom of four.
__device__ __forceinline__ uint32_t kg_spread(uint32_t bits) {
    bits = (bits | bits << 6) & 0x0303u;
    return (bits | bits << 3) & 0x1111u;
}
// Elements 4t .. 4t+3 as signed bytes.
template <int T> __device__ __forceinline__ uint32_t kg_grid_levels(const KgCodes &w, uint32_t t) {
    const uint32_t l = t >> 1, h = t & 1u;
    if constexpr (T == KG_IQ3_S || T == KG_IQ3_XXS) {
        uint32_t at = (t < 4 ? w.b0 : w.b1) >> 8 * (t & 3u) & 255u, signs;
        if constexpr (T == KG_IQ3_S) at |= (w.s >> t & 1u) << 8, signs = w.c >> 4 * t & 15u;
        else signs = kg_even_signs(w.c, l, h);
        const uint32_t q = kg_grid<T>(at) | kg_spread(signs) << 3;
        if constexpr (T == KG_IQ3_S) return kg_table16(0x07050301u, 0x0f0d0b09u, 0xf9fbfdffu, 0xf1f3f5f7u, q);
        else return kg_table16(0x1c140c04u, 0x3e342c24u, 0xe4ecf4fcu, 0xc2ccd4dcu, q);
    } else if constexpr (T == KG_IQ1_S || T == KG_IQ1_M) {
        // Eight times -1, 0 and 1, and one more or less.
        const uint32_t high = T == KG_IQ1_S ? (w.s >> 3 * l & 7u) | (w.s >> 12 & 8u) : w.s >> 4 * l & 15u;
        const uint32_t q = kg_grid<T>((w.c >> 8 * l & 255u) | (high & 7u) << 8) >> 16 * h | (high & 8u ? 0x4444u : 0u);
        return __byte_perm(0x000901f9u, 0x0007fff7u, q & 0x7777u);
    } else {
        uint32_t at = w.b0 >> 8 * l & 255u, signs;
        if constexpr (T == KG_IQ2_XXS) signs = kg_even_signs(w.b1, l, h);
        else at |= (w.s >> 2 * l & (T == KG_IQ2_XS ? 1u : 3u)) << 8, signs = w.b1 >> 4 * t & 15u; // words of rows that are not there, too
        const uint32_t q = kg_grid<T>(at) >> 16 * h | kg_spread(signs) << 2;
        return __byte_perm(0x002b1908u, 0x00d5e7f8u, q & 0x7777u);
    }
}

// The input's share for one unit of a quantized type.
struct XQuant {
    uint32_t hi[8], lo[8]; // elements 4t .. 4t+3 in word t
    float d;
    int s0, s1; // sums of 256 hi + lo over elements 0..15 and 16..31
};

// Scale and minimum of elements 0..15 (g0, m0) and 16..31 (g1, m1) of a block.
struct KgScales {
    float g0, m0, g1, m1;
};

// The sums of a block's halves as they are multiplied with minima: of types with one scale a block that of all, in s0.
struct KgSums {
    float s0, s1;
};
template <int T> __device__ __forceinline__ KgSums kg_sums(int s0, int s1) {
    return kg_has_half_scales(T) ? KgSums{(float)s0, (float)s1} : KgSums{(float)(s0 + s1), 0.f};
}

// acc + a block's dot product, rounded as written: the same in every kernel, however the compiler would fuse. p0, p1: the products of the two
// halves where each has a scale, else p0: of both; without the offset's.
template <int T, typename P> __device__ __forceinline__ float kg_unit_sum(float acc, float d, const KgSums &s, const KgScales &w, P p0, P p1) {
    if constexpr (kg_has_half_scales(T) && kg_has_least(T)) {
        const float m = __fmaf_rn(w.m0, s.s0, __fmul_rn(w.m1, s.s1));
        return __fmaf_rn(d, __fsub_rn(__fmaf_rn(w.g0, (float)p0, __fmul_rn(w.g1, (float)p1)), m), acc);
    } else if constexpr (kg_has_half_scales(T)) {
        return __fmaf_rn(d, __fmaf_rn(w.g0, (float)p0, __fmul_rn(w.g1, (float)p1)), acc);
    } else if constexpr (!kg_has_least(T)) {
        return __fmaf_rn(__fmul_rn(d, w.g0), (float)p0, acc);
    } else {
        return __fmaf_rn(d, __fmaf_rn(w.g0, (float)p0, -__fmul_rn(w.m0, s.s0)), acc);
    }
}
template <int T> __device__ __forceinline__ float kg_unit_sum(float acc, float d, int s0, int s1, const KgScales &w, int p0, int p1) {
    return kg_unit_sum<T>(acc, d, kg_sums<T>(s0, s1), w, p0, p1);
}

template <int T> struct Unit {
    uint4 a;    // nibbles, numbers of levels, or int8 0..15
    uint4 b;    // int8 16..31, or twos or codes in x, y
    uint32_t c; // bits or codes
    uint32_t s; // scales of the block
    uint32_t d; // scales of the 256, or of the matrix

    __device__ __forceinline__ void zero() {
        a = b = make_uint4(0, 0, 0, 0);
        c = s = d = 0;
    }

    // i: index of the block in the matrix.
    __device__ __forceinline__ void load(const KgMat &m, uint32_t i) {
        if constexpr (kg_has_a(T)) a = kg_stream16((const char *)m.a + (size_t)i * 16);
        if constexpr (T == KG_Q8_0) b = kg_stream16((const char *)m.b + (size_t)i * 16);
        if constexpr (kg_has_b8(T)) {
            uint2 t = kg_stream8((const char *)m.b + (size_t)i * 8);
            b.x = t.x;
            b.y = t.y;
        }
        if constexpr (kg_has_c(T)) c = kg_stream4((const char *)m.c + (size_t)i * 4);
        if constexpr (kg_s_bytes(T) == 4) s = kg_stream4((const char *)m.s + (size_t)i * 4);
        else if constexpr (kg_s_bytes(T) == 2) s = kg_stream2((const char *)m.s + (size_t)i * 2);
        if constexpr (kg_d_bytes(T) == 2) d = kg_cached2((const char *)m.d + (size_t)(i / kg_d_blocks(T)) * 2);
        if constexpr (T == KG_NVFP4) d = __float_as_uint(m.scale);
        if constexpr (kg_d_bytes(T) == 4) d = kg_cached4((const char *)m.d + (size_t)(i >> 3) * 4);
    }

    // Elements 4t .. 4t+3 as bytes, before the offset.
    template <int t> __device__ __forceinline__ uint32_t quads() const {
        if constexpr (T == KG_Q8_0) {
            const uint4 &w = t < 4 ? a : b;
            constexpr int j = t & 3;
            return j == 0 ? w.x : j == 1 ? w.y : j == 2 ? w.z : w.w;
        } else if constexpr (kg_is_table(T)) {
            constexpr int j = t & 3;
            const uint32_t w = j == 0 ? a.x : j == 1 ? a.y : j == 2 ? a.z : a.w;
            return kg_levels<T>(t < 4 ? w : w >> 16);
        } else if constexpr (kg_is_grid(T)) {
            return kg_grid_levels<T>({b.x, b.y, c, s}, t);
        } else {
            uint32_t v = 0;
            if constexpr (kg_has_nibbles(T)) {
                constexpr int j = t & 3;
                uint32_t w = j == 0 ? a.x : j == 1 ? a.y : j == 2 ? a.z : a.w;
                v = (t < 4 ? w : w >> 4) & 0x0f0f0f0fu;
            }
            if constexpr (kg_has_twos(T)) {
                uint32_t w = t < 4 ? b.x : b.y;
                constexpr int from = 2 * (t & 3), to = kg_has_nibbles(T) ? 4 : 0;
                uint32_t moved = to >= from ? w << (to >= from ? to - from : 0) : w >> (to >= from ? 0 : from - to);
                v |= moved & (0x03030303u << to);
            }
            if constexpr (kg_has_bits(T)) {
                constexpr int to = kg_bit_place(T);
                uint32_t moved = to >= t ? c << (to >= t ? to - t : 0) : c >> (to >= t ? 0 : t - to);
                v |= moved & (0x01010101u << to);
            }
            return v;
        }
    }

    // ONE: these levels are for one input, so that getting them takes longer than multiplying with them.
    template <int t0, bool ONE> __device__ __forceinline__ int half_dot(const XQuant &x) const {
        int hi = 0, lo = 0;
        if constexpr (ONE && kg_is_table(T)) {
            const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint32_t other = words[j] ^ 0x88888888u;
                const uint2 q = t0 ? kg_levels_apart<T>(words[j] >> 16, other >> 16) : kg_levels_apart<T>(words[j], other);
                hi = kg_dot_ss(q.y, x.hi[t0 + j], kg_dot_ss(q.x, x.hi[t0 + j], hi));
                lo = kg_dot_su(q.y, x.lo[t0 + j], kg_dot_su(q.x, x.lo[t0 + j], lo));
            }
            return hi * 256 + lo;
        }
        const uint32_t q0 = quads<t0>(), q1 = quads<t0 + 1>(), q2 = quads<t0 + 2>(), q3 = quads<t0 + 3>();
        if constexpr (kg_is_signed(T)) {
            hi = kg_dot_ss(q0, x.hi[t0], hi);
            hi = kg_dot_ss(q1, x.hi[t0 + 1], hi);
            hi = kg_dot_ss(q2, x.hi[t0 + 2], hi);
            hi = kg_dot_ss(q3, x.hi[t0 + 3], hi);
            lo = kg_dot_su(q0, x.lo[t0], lo);
            lo = kg_dot_su(q1, x.lo[t0 + 1], lo);
            lo = kg_dot_su(q2, x.lo[t0 + 2], lo);
            lo = kg_dot_su(q3, x.lo[t0 + 3], lo);
        } else {
            hi = kg_dot_us(q0, x.hi[t0], hi);
            hi = kg_dot_us(q1, x.hi[t0 + 1], hi);
            hi = kg_dot_us(q2, x.hi[t0 + 2], hi);
            hi = kg_dot_us(q3, x.hi[t0 + 3], hi);
            lo = kg_dot_uu(q0, x.lo[t0], lo);
            lo = kg_dot_uu(q1, x.lo[t0 + 1], lo);
            lo = kg_dot_uu(q2, x.lo[t0 + 2], lo);
            lo = kg_dot_uu(q3, x.lo[t0 + 3], lo);
        }
        return hi * 256 + lo;
    }

    // Of the block; q is without the offset: w = g q - m.
    __device__ __forceinline__ KgScales scales() const {
        if constexpr (T == KG_Q4_0 || T == KG_Q5_0 || T == KG_Q8_0 || T == KG_IQ4_NL || T == KG_Q2_0) {
            const float g = kg_half_bits(s);
            return {g, 0.f, g, 0.f};
        } else if constexpr (T == KG_MXFP4) {
            const float g = __uint_as_float(s << 16);
            return {g, 0.f, g, 0.f};
        } else if constexpr (T == KG_NVFP4) {
            // As halves their exponents are 8 lower, and half of each is wanted.
            const float f = __uint_as_float(d) * 128.f;
            return {kg_half_bits((s & 127u) << 7) * f, 0.f, kg_half_bits((s >> 8 & 127u) << 7) * f, 0.f};
        } else if constexpr (kg_is_ternary(T)) {
            const float g = kg_half_bits(d);
            return {g, 0.f, g, 0.f};
        } else if constexpr (kg_is_grid(T)) {
            const float f = kg_half_bits(d) * (T == KG_IQ3_S ? 1.f : T == KG_IQ3_XXS ? 0.25f : 0.125f);
            auto scale = [f](uint32_t n) { return f * (float)(2u * n + 1u); };
            if constexpr (T == KG_IQ2_S || T == KG_IQ2_XS) return {scale(s >> 8 & 15u), 0.f, scale(s >> 12 & 15u), 0.f};
            else if constexpr (T == KG_IQ1_M) return {scale(s >> 16 & 7u), 0.f, scale(s >> 20 & 7u), 0.f};
            else {
                const float g = scale(T == KG_IQ3_XXS ? c >> 28 : T == KG_IQ2_XXS ? b.y >> 28 : T == KG_IQ3_S ? s >> 8 & 15u : s >> 12 & 7u);
                return {g, 0.f, g, 0.f};
            }
        } else if constexpr (T == KG_IQ4_XS) {
            const float g = kg_half_bits(d) * (float)(int8_t)(s & 0xff);
            return {g, 0.f, g, 0.f};
        } else if constexpr (T == KG_Q4_1 || T == KG_Q5_1) {
            const float g = kg_half_bits(s & 0xffff), m = -kg_half_bits(s >> 16);
            return {g, m, g, m};
        } else if constexpr (T == KG_Q4_K || T == KG_Q5_K) {
            const float g = kg_half_bits(d & 0xffff) * (float)(s & 255), m = kg_half_bits(d >> 16) * (float)(s >> 8);
            return {g, m, g, m};
        } else if constexpr (T == KG_Q3_K || T == KG_Q6_K) {
            const float f = kg_half_bits(d);
            return {f * (float)(int8_t)(s & 0xff), 0.f, f * (float)(int8_t)(s >> 8 & 0xff), 0.f};
        } else {
            const float f = kg_half_bits(d & 0xffff), g = kg_half_bits(d >> 16);
            return {f * (float)(s & 15), g * (float)(s >> 4 & 15), f * (float)(s >> 8 & 15), g * (float)(s >> 12 & 15)};
        }
    }

    // acc + the unit's dot product; ONE: with the only input that it is multiplied with.
    template <bool ONE = false> __device__ __forceinline__ float add(float acc, const XQuant &x) const {
        constexpr int off = kg_offset(T);
        const int p0 = half_dot<0, ONE>(x), p1 = half_dot<4, ONE>(x);
        if constexpr (kg_has_half_scales(T)) return kg_unit_sum<T>(acc, x.d, x.s0, x.s1, scales(), p0 - off * x.s0, p1 - off * x.s1);
        else return kg_unit_sum<T>(acc, x.d, x.s0, x.s1, scales(), p0 + p1 - off * (x.s0 + x.s1), 0);
    }

    template <int t> __device__ __forceinline__ void expand4(float *out, float g, float m) const {
        uint32_t q = quads<t>();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int v = kg_is_signed(T) ? (int)(int8_t)(q >> (8 * i)) : (int)(q >> (8 * i) & 255) - kg_offset(T);
            out[4 * t + i] = g * (float)v - m;
        }
    }
    // All 32 elements.
    __device__ __forceinline__ void expand(float *out) const {
        const auto [g0, m0, g1, m1] = scales();
        expand4<0>(out, g0, m0);
        expand4<1>(out, g0, m0);
        expand4<2>(out, g0, m0);
        expand4<3>(out, g0, m0);
        expand4<4>(out, g1, m1);
        expand4<5>(out, g1, m1);
        expand4<6>(out, g1, m1);
        expand4<7>(out, g1, m1);
    }
};

// Units of a row.
static inline unsigned kg_units(const KgMat *m) { return kg_is_quant((int)m->type) ? m->cols / 32 : m->stride / 8; }
