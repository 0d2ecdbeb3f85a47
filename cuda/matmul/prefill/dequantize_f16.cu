// Rows of weights as f16, for the matrix kernels of prefill: slab[r, c] = f16(W[row0 + r, c]).
//
// slab: [n, stride] f16, the matrix's stride; lo: what the rounding leaves, the same shape, or null. A thread a unit.
// Bytes moved: the rows once, the result once. Reference: src/gguf's dequantization.
#include "device/packed.cuh"

template <int T> __global__ void __launch_bounds__(256) kg_dequantize_f16(KgMat m, uint32_t row0, uint64_t n_units, __half *slab, __half *lo) {
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

// Rows row0 .. row0 + n of the matrix as f16; lo: what the rounding leaves, or null.
KGC_API cudaError_t kgc_dequantize_f16(const KgMat *m, uint32_t row0, uint32_t n, void *slab, void *lo, cudaStream_t stream) {
    if (n == 0 || row0 + n > m->rows) return cudaErrorInvalidValue;
    uint64_t units = (uint64_t)n * kg_units(m);
    unsigned grid = (unsigned)((units + 255) / 256);
    __half *to = (__half *)slab, *rest = (__half *)lo;
    return kg_by_type(m->type,
                      [&](auto t) { return kg_launch(kg_dequantize_f16<decltype(t)::type>, dim3(grid), dim3(256), 0, 0, stream, *m, row0, units, to, rest); });
}
