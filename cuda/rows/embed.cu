// Weights as numbers: the embedding row of a token, and rows as f16 for the matrix kernels of prefill.
//
//   embed:  x = scale * row(token)                      [cols] f32, one thread a unit
//   expand: slab[r, c] = f16(W[row0 + r, c])            [n, cols_padded] f16, cols_padded = the matrix's stride
// Bytes moved: the rows once, the result once.
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
    case KG_F32: return kg_embed_unit<KG_F32>(m, row, u, scale, x);
    case KG_F16: return kg_embed_unit<KG_F16>(m, row, u, scale, x);
    case KG_BF16: return kg_embed_unit<KG_BF16>(m, row, u, scale, x);
    case KG_Q4_0: return kg_embed_unit<KG_Q4_0>(m, row, u, scale, x);
    case KG_Q4_1: return kg_embed_unit<KG_Q4_1>(m, row, u, scale, x);
    case KG_Q5_0: return kg_embed_unit<KG_Q5_0>(m, row, u, scale, x);
    case KG_Q5_1: return kg_embed_unit<KG_Q5_1>(m, row, u, scale, x);
    case KG_Q8_0: return kg_embed_unit<KG_Q8_0>(m, row, u, scale, x);
    case KG_Q2_K: return kg_embed_unit<KG_Q2_K>(m, row, u, scale, x);
    case KG_Q3_K: return kg_embed_unit<KG_Q3_K>(m, row, u, scale, x);
    case KG_Q4_K: return kg_embed_unit<KG_Q4_K>(m, row, u, scale, x);
    case KG_Q5_K: return kg_embed_unit<KG_Q5_K>(m, row, u, scale, x);
    case KG_Q6_K: return kg_embed_unit<KG_Q6_K>(m, row, u, scale, x);
    case KG_F16_TILED: return kg_embed_unit<KG_F16_TILED>(m, row, u, scale, x);
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

template <int T> __global__ void __launch_bounds__(256) kg_expand(KgMat m, uint32_t row0, uint64_t n_units, __half *slab, __half *lo) {
    uint64_t at = (uint64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= n_units) return;
    constexpr int N = kg_is_quant(T) ? 32 : 8;
    uint32_t per_row = kg_is_quant(T) ? m.cols / 32 : m.stride / 8;
    Unit<T> f;
    f.load(m, (uint32_t)((uint64_t)row0 * per_row + at));
    float v[N];
    f.expand(v);
    uint4 *to = (uint4 *)(slab + at * N), *rest = (uint4 *)(lo + at * N);
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        __half2 h[4], l[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float a = v[8 * i + 2 * j], b = v[8 * i + 2 * j + 1];
            h[j] = __floats2half2_rn(a, b);
            const float2 f = __half22float2(h[j]);
            l[j] = __floats2half2_rn(a - f.x, b - f.y);
        }
        to[i] = *reinterpret_cast<uint4 *>(h);
        if (lo) rest[i] = *reinterpret_cast<uint4 *>(l);
    }
}

static inline unsigned kg_units(const KgMat *m) { return kg_is_quant((int)m->type) ? m->cols / 32 : m->stride / 8; }

// state: [n_seq]; x: [n_seq, x_stride].
KGC_API cudaError_t kgc_embed(const KgMat *m, const KgState *state, uint32_t n_seq, float scale, float *x, uint32_t x_stride, int pdl,
                              cudaStream_t stream) {
    return kg_launch(kg_embed, dim3((kg_units(m) + 63) / 64, n_seq), dim3(64), 0, pdl, stream, *m, state, scale, x, x_stride);
}

// tokens: [n] on the device; x: [n, x_stride].
KGC_API cudaError_t kgc_embed_rows(const KgMat *m, const int32_t *tokens, uint32_t n, float scale, float *x, uint32_t x_stride,
                                   cudaStream_t stream) {
    if (n == 0 || n > 65535) return cudaErrorInvalidValue;
    return kg_launch(kg_embed_rows, dim3((kg_units(m) + 63) / 64, n), dim3(64), 0, 0, stream, *m, tokens, scale, x, x_stride);
}

// Rows row0 .. row0 + n of the matrix as f16; lo: what the rounding leaves, or null.
KGC_API cudaError_t kgc_expand(const KgMat *m, uint32_t row0, uint32_t n, void *slab, void *lo, cudaStream_t stream) {
    if (n == 0 || row0 + n > m->rows) return cudaErrorInvalidValue;
    uint64_t units = (uint64_t)n * kg_units(m);
    unsigned grid = (unsigned)((units + 255) / 256);
    __half *to = (__half *)slab, *rest = (__half *)lo;
    return kg_by_type(m->type,
                      [&](auto t) { return kg_launch(kg_expand<decltype(t)::type>, dim3(grid), dim3(256), 0, 0, stream, *m, row0, units, to, rest); });
}

// out = activation(gate) * up over n elements: where gate and up differ in type and cannot share a stage.
__global__ void __launch_bounds__(256) kg_glu(const float *gate, const float *up, float *out, uint32_t n, uint32_t activation) {
    uint32_t i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    float g = gate[i];
    float a = activation == 1 ? g / (1.f + expf(-g))
                              : 0.5f * g * (1.f + tanhf(0.7978845608028654f * (g + 0.044715f * g * g * g)));
    out[i] = a * up[i];
}

// activation: 1 silu, 2 gelu.
KGC_API cudaError_t kgc_glu(const float *gate, const float *up, float *out, uint32_t n, uint32_t activation, cudaStream_t stream) {
    return kg_launch(kg_glu, dim3((n + 255) / 256), dim3(256), 0, 0, stream, gate, up, out, n, activation);
}
