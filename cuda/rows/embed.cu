// The embedding row of a token: x = scale * row(token), [cols] f32, a thread a unit.
//
// Bytes moved: the rows once, the result once. Reference: src/backend/reference.
#include "device/packed.cuh"

template <int T> __device__ __forceinline__ void kg_embed_unit(const KgMat &m, uint32_t row, uint32_t u, float scale, float *x) {
    constexpr int N = kg_is_quant(T) ? 32 : 8;
    uint32_t per_row = kg_is_quant(T) ? m.cols / 32 : m.stride / 8;
    if (u >= per_row) return;
    Unit<T> f;
    f.load(m, row * per_row + u);
    float v[N];
    f.expand(v);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (u * N + i < m.cols) x[(size_t)u * N + i] = scale * v[i];
}

__device__ __forceinline__ void kg_embed_any(const KgMat &m, uint32_t row, uint32_t u, float scale, float *x) {
    switch (m.type) {
#define KG_CASE(T) \
    case T: return kg_embed_unit<T>(m, row, u, scale, x);
        KG_TYPES(KG_CASE)
#undef KG_CASE
    }
}

__global__ void __launch_bounds__(64) kg_embed(KgMat m, const KgState *state, float scale, float *x, uint32_t x_stride) {
    kg_launch_dependents();
    kg_wait();
    kg_embed_any(m, (uint32_t)state[blockIdx.y].token, blockIdx.x * 64 + threadIdx.x, scale, x + (size_t)blockIdx.y * x_stride);
}

__global__ void __launch_bounds__(64) kg_embed_rows(KgMat m, const int32_t *tokens, float scale, float *x, uint32_t x_stride) {
    kg_embed_any(m, (uint32_t)tokens[blockIdx.y], blockIdx.x * 64 + threadIdx.x, scale, x + (size_t)blockIdx.y * x_stride);
}

// state: [n_seq]; x: [n_seq, x_stride].
KGC_API cudaError_t kgc_embed(const KgMat *m, const KgState *state, uint32_t n_seq, float scale, float *x, uint32_t x_stride, cudaStream_t stream) {
    return kg_launch(kg_embed, dim3((kg_units(m) + 63) / 64, n_seq), dim3(64), 0, 0, stream, *m, state, scale, x, x_stride);
}

// tokens: [n] on the device; x: [n, x_stride].
KGC_API cudaError_t kgc_embed_rows(const KgMat *m, const int32_t *tokens, uint32_t n, float scale, float *x, uint32_t x_stride,
                                   cudaStream_t stream) {
    if (n == 0 || n > 65535) return cudaErrorInvalidValue;
    return kg_launch(kg_embed_rows, dim3((kg_units(m) + 63) / 64, n), dim3(64), 0, 0, stream, *m, tokens, scale, x, x_stride);
}
