// Neighbours loaded and stored together, and halves that are never infinite.
#pragma once
#include "device/common.cuh"

template <int V> struct alignas(4 * V) KgFloats {
    float v[V];
};
template <int V> struct alignas(2 * V) KgHalves {
    __half v[V];
};

__device__ __forceinline__ float kg_clamp16(float v) { return v > 65504.f ? 65504.f : v < -65504.f ? -65504.f : v; }
// Two neighbours as f16 at `at`, and, where that is wanted, what the rounding has left.
__device__ __forceinline__ void kg_put16(__half *to, __half *lo, size_t at, float a, float b) {
    const __half2 h = __floats2half2_rn(kg_clamp16(a), kg_clamp16(b));
    *(__half2 *)(to + at) = h;
    if (!lo) return;
    const float2 f = __half22float2(h);
    *(__half2 *)(lo + at) = __floats2half2_rn(kg_clamp16(a - f.x), kg_clamp16(b - f.y));
}

// Programmatic dependence: nothing before kg_begin() touches what an earlier kernel wrote or reads.
__device__ __forceinline__ void kg_begin() {
    kg_launch_dependents();
    kg_wait();
}
