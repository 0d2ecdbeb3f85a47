// Rows of f32 as the products of prompts' experts read them: f16 in the order of device/fragments.cuh.
//
//   y[r, place(c)] = f16(x[r, c]), clamped to +-65504, and zeros up to whole 128s
// x: [n_rows, n] f32, rows x_stride apart; y: [n_rows, y_stride] f16, 16-byte aligned. Geometry: a thread eight neighbours of y, blockIdx.y a
// row. Bytes moved: x once, y once. Reference: tests/gpu/operations/expert_gemm.rs.
#include "device/fragments.cuh"
#include "device/vectors.cuh"

__global__ void __launch_bounds__(128) kg_expert_rows(const float *x, __half *y, uint32_t n, uint32_t x_stride, uint32_t y_stride) {
    const uint32_t p = (blockIdx.x * 128 + threadIdx.x) * 8;
    kg_begin();
    if (p >= kg_fragments(n) * KG_FRAGMENTS) return;
    const float *from = x + (size_t)blockIdx.y * x_stride;
    KgHalves<8> out;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t c = kg_fragment_column(p + i);
        out.v[i] = __float2half_rn(c < n ? kg_clamp16(from[c]) : 0.f);
    }
    *(KgHalves<8> *)(y + (size_t)blockIdx.y * y_stride + p) = out;
}

KGC_API cudaError_t kgc_expert_rows(const float *x, void *y, uint32_t n_rows, uint32_t n, uint32_t x_stride, uint32_t y_stride, int pdl,
                                    cudaStream_t stream) {
    const uint32_t whole = kg_fragments(n) * KG_FRAGMENTS;
    bool ok = x && y && (uintptr_t)y % 16 == 0 && n_rows && n_rows <= 65535 && n && n < (1u << 30);
    ok = ok && x_stride >= n && y_stride >= whole && y_stride % 8 == 0;
    if (!ok) return cudaErrorInvalidValue;
    return kg_launch(kg_expert_rows, dim3((whole / 8 + 127) / 128, n_rows), dim3(128), 0, pdl, stream, x, (__half *)y, n, x_stride, y_stride);
}
