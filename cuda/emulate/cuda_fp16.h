// Halves as 16 bits, converted by the processor's own instructions (F16C).
#pragma once
#include "emulate.h"
#include <immintrin.h>

struct __half { uint16_t bits; };
struct alignas(4) __half2 { __half x, y; };
static inline float __half2float(__half h) { return _cvtsh_ss(h.bits); }
static inline __half __float2half_rn(float f) { return {(uint16_t)_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT)}; }
static inline __half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
static inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
static inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
static inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
