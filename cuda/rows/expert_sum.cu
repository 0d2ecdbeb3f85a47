// What the experts of a row have made of it, added up: what is there (of the expert that all share) first, then those that were
// chosen, in ascending order of their ids, as their slots lie.
//
//   y = (shared ? y * (gate ? sigmoid(gate) : 1) : 0) + sum over i of weights_i * made_i
// made: [n_rows * n_used, stride], weights: [n_rows, n_used], gate: [n_rows] or null, y: [n_rows, y_stride], n columns of each. Geometry:
// 256 threads of an element each, blockIdx.y a row. Bytes moved: made once, y once. Reference: tests/gpu/operations/experts.rs.
#include "device/vectors.cuh"

__global__ void __launch_bounds__(256) kg_expert_sum(const float *made, const float *weights, const float *gate, float *y,
                                                     uint32_t shared, uint32_t n_used,
                                                     uint32_t n, uint32_t stride, uint32_t y_stride) {
    const uint32_t i = blockIdx.x * 256 + threadIdx.x;
    const size_t row = blockIdx.y;
    kg_begin();
    if (i >= n) return;
    float *to = y + row * y_stride + i, sum = 0.f;
    if (shared) sum = gate ? __fmul_rn(*to, 1.f / (1.f + expf(-gate[row]))) : *to;
    const float *from = made + row * n_used * stride + i;
#pragma unroll 8
    for (uint32_t e = 0; e < n_used; e++) sum = __fmaf_rn(weights[row * n_used + e], from[(size_t)e * stride], sum);
    *to = sum;
}

KGC_API cudaError_t kgc_expert_sum(const float *made, const float *weights, const float *gate, float *y, int shared, uint32_t n_rows, uint32_t n_used,
                                   uint32_t n, uint32_t stride, uint32_t y_stride, int pdl, cudaStream_t stream) {
    bool ok = made && weights && y && n_rows && n_rows <= 65535 && n_used && n && stride >= n && y_stride >= n && !(gate && !shared);
    if (!ok) return cudaErrorInvalidValue;
    const dim3 grid((n + 255) / 256, n_rows);
    return kg_launch(kg_expert_sum, grid, dim3(256), 0, pdl, stream, made, weights, gate, y, (uint32_t)shared, n_used, n, stride, y_stride);
}
