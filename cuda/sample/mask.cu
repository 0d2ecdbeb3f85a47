// Logits that a grammar does not allow become -inf, in a copy: out[i] = the i-th bit of `allowed` ? logits[i] : -inf.
//
// logits, out: [n] f32; allowed: [n / 32] words, the lowest bit first. Bytes moved: logits, bits and out once.
#include "device/common.cuh"

__global__ void __launch_bounds__(256) kg_mask(const float *logits, const uint32_t *allowed, float *out, uint32_t n) {
    const uint32_t i = blockIdx.x * 256 + threadIdx.x;
    if (i < n) out[i] = allowed[i / 32] >> (i % 32) & 1 ? logits[i] : -INFINITY;
}
KGC_API cudaError_t kgc_mask(const float *logits, const uint32_t *allowed, float *out, uint32_t n, cudaStream_t stream) {
    if (!logits || !allowed || !out || !n) return cudaErrorInvalidValue;
    return kg_launch(kg_mask, dim3((n + 255) / 256), dim3(256), 0, 0, stream, logits, allowed, out, n);
}
