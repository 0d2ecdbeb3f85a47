// What stands between gate and up: silu(g) = g / (1 + e^-g), gelu(g) = g (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3))) / 2, and,
// where a kernel has any of them (kg_activation_any), gelu_erf(g) = g (1 + erf(g / sqrt(2))) / 2 and relu2(g) = max(g, 0)^2.
#pragma once
#include "device/common.cuh"

// The gate of a decode step.
__device__ __forceinline__ float kg_activation(uint32_t kind, float g) {
    if (kind == KG_ACTIVATION_SILU) return g / (1.f + expf(-g));
    return 0.5f * g * (1.f + tanhf(0.7978845608028654f * (g + 0.044715f * g * g * g)));
}

// Any of them.
__device__ __forceinline__ float kg_activation_any(uint32_t kind, float g) {
    if (kind == KG_ACTIVATION_GELU_ERF) return 0.5f * g * (1.f + erff(g * 0.70710678118654752f));
    if (kind == KG_ACTIVATION_RELU2) return g > 0.f ? g * g : g == g ? 0.f : g; // NaN stays NaN
    return kg_activation(kind, g);
}

// The two factors of gpt-oss's: g sigmoid(1.702 g) with g = min(gate, 7), and clamp(up, -7, 7) + 1. NaN stays NaN.
__device__ __forceinline__ float kg_clamped_swish(float gate) {
    const float g = gate > 7.f ? 7.f : gate;
    return g / (1.f + expf(-1.702f * g));
}
__device__ __forceinline__ float kg_clamped_up(float up) { return (up > 7.f ? 7.f : up < -7.f ? -7.f : up) + 1.f; }

// A gated unit, rounded as written.
__device__ __forceinline__ float kg_gated(uint32_t kind, float gate, float up) {
    if (kind == KG_ACTIVATION_CLAMPED_SWIGLU) return __fmul_rn(kg_clamped_swish(gate), kg_clamped_up(up));
    return __fmul_rn(kg_activation_any(kind, gate), up);
}

// Logits by their scale, and capped where the cap is finite.
__device__ __forceinline__ float kg_capped(float cap, float scale, float y) {
    y = __fmul_rn(y, scale);
    return cap < INFINITY ? cap * tanhf(y / cap) : y;
}

// The gate of prefill, with the exponential of the special function unit.
__device__ __forceinline__ float kg_activation_approx(uint32_t kind, float v) {
    if (kind == KG_ACTIVATION_SILU) return v / (1.f + __expf(-v));
    // tanh(u) = 1 - 2 / (1 + e^2u): no cancellation that matters, since it is added to 1.
    const float u = 0.7978845608028654f * (v + 0.044715f * v * v * v);
    return v * (1.f - 1.f / (1.f + __expf(2.f * u)));
}
