// What code this library has for the current device.
#include "device/common.cuh"

static __global__ void kg_any() {}

// The compute capability that the code running on the current device was compiled for, times 10: code that came as
// PTX of 9.0 has none of the newer instructions, whatever the device. 0 and the reason where this build has no code for the device.
KGC_API cudaError_t kgc_code(int *version) {
    cudaFuncAttributes attributes;
    const cudaError_t e = cudaFuncGetAttributes(&attributes, (const void *)kg_any);
    *version = e == cudaSuccess ? attributes.ptxVersion : 0;
    return e == cudaSuccess ? e : (cudaGetLastError(), e);
}
