// A unit of the matrices of experts, each of which may have a scale of its own.
#pragma once
#include "device/packed.cuh"

// Unit<T>::load, and of NVFP4 the scale of its expert. By itself: a word a block costs dense products registers.
template <int T> __device__ __forceinline__ void kg_load_expert(Unit<T> &unit, const KgMat &m, uint32_t i) {
    unit.load(m, i);
    if constexpr (T == KG_NVFP4)
        if (m.each) unit.d = kg_cached4((const char *)m.d + (size_t)(i / m.each) * 4);
}

// What all values of an expert are multiplied with: of NVFP4.
template <int T> __device__ __forceinline__ float kg_expert_scale(const KgMat &m, uint32_t expert) {
    if constexpr (T == KG_NVFP4)
        if (m.each) return ((const float *)m.d)[expert];
    return m.scale;
}
