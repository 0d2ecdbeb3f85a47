// One unit of a row of float types in registers: 8 elements. Part of packed.cuh, which says what a unit is.
#pragma once
#include "device/common.cuh"

template <int T> struct Unit;
// The input's share for a unit.
struct XFloat {
    float4 v0, v1;
};

// Word w (two elements) of unit u (8 elements) of a row of KG_F16_TILED; per_row: units of a row.
__device__ __forceinline__ size_t kg_tiled_word(uint32_t row, uint32_t u, uint32_t w, uint32_t per_row) {
    const size_t tile = (size_t)(row / 16) * (per_row / 4) + u / 4;
    return tile * 256 + w / 2 * 128 + (row % 8 * 4 + u % 4) * 4 + w % 2 * 2 + row / 8 % 2;
}

// Float types: 8 elements.
template <int T> struct UnitFloat {
    uint4 a, b;
    __device__ __forceinline__ void zero() { a = b = make_uint4(0, 0, 0, 0); }
    __device__ __forceinline__ void load(const KgMat &m, uint32_t i) {
        if constexpr (T == KG_F32) {
            a = kg_stream16((const char *)m.a + (size_t)i * 32);
            b = kg_stream16((const char *)m.a + (size_t)i * 32 + 16);
        } else {
            a = kg_stream16((const char *)m.a + (size_t)i * 16);
        }
    }
    static __device__ __forceinline__ float2 two(uint32_t w) {
        if constexpr (T == KG_F16) {
            return __half22float2(*reinterpret_cast<const __half2 *>(&w));
        } else {
            return make_float2(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u));
        }
    }
    __device__ __forceinline__ void expand(float *o) const {
        if constexpr (T == KG_F32) {
            o[0] = __uint_as_float(a.x), o[1] = __uint_as_float(a.y), o[2] = __uint_as_float(a.z), o[3] = __uint_as_float(a.w);
            o[4] = __uint_as_float(b.x), o[5] = __uint_as_float(b.y), o[6] = __uint_as_float(b.z), o[7] = __uint_as_float(b.w);
        } else {
            float2 p = two(a.x), q = two(a.y), r = two(a.z), t = two(a.w);
            o[0] = p.x, o[1] = p.y, o[2] = q.x, o[3] = q.y, o[4] = r.x, o[5] = r.y, o[6] = t.x, o[7] = t.y;
        }
    }
    __device__ __forceinline__ float dot(const XFloat &x) const {
        float o[8];
        expand(o);
        float p = o[0] * x.v0.x;
        p = fmaf(o[1], x.v0.y, p);
        p = fmaf(o[2], x.v0.z, p);
        p = fmaf(o[3], x.v0.w, p);
        p = fmaf(o[4], x.v1.x, p);
        p = fmaf(o[5], x.v1.y, p);
        p = fmaf(o[6], x.v1.z, p);
        p = fmaf(o[7], x.v1.w, p);
        return p;
    }
};
template <> struct Unit<KG_F32> : UnitFloat<KG_F32> {};
template <> struct Unit<KG_F16> : UnitFloat<KG_F16> {};
template <> struct Unit<KG_BF16> : UnitFloat<KG_BF16> {};
template <> struct Unit<KG_F16_TILED> : UnitFloat<KG_F16> {
    // i: of the unit as if rows lay one after another.
    __device__ __forceinline__ void load(const KgMat &m, uint32_t i) {
        const uint32_t per_row = m.stride / 8;
        const uint32_t *from = (const uint32_t *)m.a + kg_tiled_word(i / per_row, i % per_row, 0, per_row);
        a = make_uint4(kg_cached4(from), kg_cached4(from + 2), kg_cached4(from + 128), kg_cached4(from + 130));
    }
};
