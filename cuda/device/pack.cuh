// Two floats as the packed halves that ptx.cuh's mma takes.
#pragma once
#include "device/ptx.cuh"

__device__ __forceinline__ uint32_t kg_pack(float a, float b) {
    const __half2 h = __floats2half2_rn(a, b);
    return *(const uint32_t *)&h;
}
