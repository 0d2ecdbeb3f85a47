// Halves as 16 bits, converted by the processor's own instructions (F16C).
#pragma once
#include "emulate.h"

struct __half { uint16_t bits; };
struct alignas(4) __half2 { __half x, y; };
static inline float __half2float(__half h) { return _cvtsh_ss(h.bits); }
static inline __half __float2half_rn(float f) { return {(uint16_t)_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT)}; }
static inline __half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
static inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
static inline __half2 __hsub2(__half2 a, __half2 b) {
    return {__float2half_rn(__half2float(a.x) - __half2float(b.x)), __float2half_rn(__half2float(a.y) - __half2float(b.y))};
}
static inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
static inline __half __ushort_as_half(uint16_t bits) { return {bits}; }

// Products of matrices, as ptx.h and wgmma.h have them.
// 16 halves of four lanes' registers, two of each, as floats.
static inline void emulate_row(float (&row)[16], const uint32_t *all, uint32_t registers, uint32_t lane, uint32_t first, uint32_t step) {
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t words[4];
        for (uint32_t i = 0; i < 4; i++) words[i] = all[(lane + i) * registers + first + h * step];
        __m128i halves;
        memcpy(&halves, words, 16);
        _mm256_storeu_ps(row + 8 * h, _mm256_cvtph_ps(halves));
    }
}
// d[2 i + j] += a[i] b[j]: all products of matrices add in this one order, whichever instruction they are.
static inline void emulate_sums(float *d0, float *d1, float *d2, float *d3, const float (&a)[2][16], const float (&b)[2][16]) {
    __m256 of[4];
    for (uint32_t i = 0; i < 4; i++) {
        const float *x = a[i / 2], *y = b[i % 2];
        const __m256 first = _mm256_mul_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(y));
        of[i] = _mm256_add_ps(first, _mm256_mul_ps(_mm256_loadu_ps(x + 8), _mm256_loadu_ps(y + 8)));
    }
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(of[0], of[1]), _mm256_hadd_ps(of[2], of[3]));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
    float s[4];
    _mm_storeu_ps(s, sums);
    *d0 += s[0], *d1 += s[1], *d2 += s[2], *d3 += s[3];
}
