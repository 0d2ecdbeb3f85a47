// out = activation(gate) * up over n elements f32: where gate and up differ in type and cannot share a stage.
//
// Bytes moved: gate and up once, out once.
#include "device/activation.cuh"

__global__ void __launch_bounds__(256) kg_glu(const float *gate, const float *up, float *out, uint32_t n, uint32_t activation) {
    uint32_t i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    out[i] = kg_activation(activation, gate[i]) * up[i];
}

// activation: a KgActivation other than none.
KGC_API cudaError_t kgc_glu(const float *gate, const float *up, float *out, uint32_t n, uint32_t activation, cudaStream_t stream) {
    return kg_launch(kg_glu, dim3((n + 255) / 256), dim3(256), 0, 0, stream, gate, up, out, n, activation);
}
