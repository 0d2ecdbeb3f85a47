// Reads memory as fast as it goes: the measure that speeds are held against.
#include "device/common.cuh"

__global__ void __launch_bounds__(512) kg_read(const uint4 *from, uint64_t n, uint32_t *out) {
    constexpr int AT_ONCE = 8;
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    uint32_t sum = 0;
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += AT_ONCE * step) {
        uint4 v[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) v[k] = i + k * step < n ? kg_stream16(from + i + k * step) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) sum += v[k].x + v[k].y + v[k].z + v[k].w;
    }
    // Never so, but the compiler does not know.
    if (sum == 0x9e3779b9u && n == 0) *out = sum;
}

// from: bytes of device memory, 16-byte aligned, a multiple of 16; out: one element.
KGC_API cudaError_t kgc_read(const void *from, uint64_t bytes, uint32_t *out, uint32_t n_sm, cudaStream_t stream) {
    return kg_launch(kg_read, dim3(2 * n_sm), dim3(512), 0, 0, stream, (const uint4 *)from, bytes / 16, out);
}
