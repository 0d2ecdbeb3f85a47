// The parts of a product summed where no norm does it: y = part_0 + part_1 + .. + bias, as kgc_batch_norm sums them.
//
// part: [n_part, n_rows, stride] f32, y: [n_rows, stride], of which n columns; bias [n] or null. Geometry: 256 threads of an element each,
// blockIdx.y a row. Bytes moved: the parts once, y once. Reference: tests/gpu/operations/rows.rs.
#include "device/vectors.cuh"

__global__ void __launch_bounds__(256) kg_sum_parts(const float *part, const float *bias, float *y, uint32_t n_part, uint32_t n, uint32_t stride) {
    const uint32_t i = blockIdx.x * 256 + threadIdx.x;
    kg_begin();
    if (i >= n) return;
    const size_t at = (size_t)blockIdx.y * stride + i, each = (size_t)gridDim.y * stride;
    float v[KG_MOST_PARTS], sum = 0.f;
#pragma unroll
    for (uint32_t p = 0; p < KG_MOST_PARTS; p++)
        if (p < n_part) v[p] = part[p * each + at];
#pragma unroll
    for (uint32_t p = 0; p < KG_MOST_PARTS; p++)
        if (p < n_part) sum = __fadd_rn(sum, v[p]);
    y[at] = __fadd_rn(sum, bias ? bias[i] : 0.f);
}

KGC_API cudaError_t kgc_sum_parts(const float *part, const float *bias, float *y, uint32_t n_part, uint32_t n_rows, uint32_t n, uint32_t stride,
                                  int pdl, cudaStream_t stream) {
    if (!part || !y || !n_part || n_part > KG_MOST_PARTS || !n_rows || n_rows > 65535 || !n || stride < n) return cudaErrorInvalidValue;
    return kg_launch(kg_sum_parts, dim3((n + 255) / 256, n_rows), dim3(256), 0, pdl, stream, part, bias, y, n_part, n, stride);
}
