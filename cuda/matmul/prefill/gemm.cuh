// What both matrix-product paths share: the arguments, the tiles' order and what happens to a finished sum.
//
//   s[i, j] = sum_l x[i, l] w[j, l]  (+ bias[j])        x f16 or x + x_lo, w f16, products exact, sums f32
//   with x_lo and w_lo: of (x + x_lo) (w + w_lo) all but the last product: x w, then x_lo w, then x w_lo
//   KG_GEMM_F32   y = s              f32     KG_GEMM_ADD   y += s                   f32, the residual stream
//   KG_GEMM_F16   y = s  f16                 KG_GEMM_SILU  y = silu(s0) * s1        f16
//                                            KG_GEMM_GELU  y = gelu_tanh(s0) * s1   f16
// s0 and s1 are the sums over w[0] (gate) and w[1] (up). f16 results are clamped to +-65504: never infinite, NaN stays NaN.
// f16 and not bf16: weights of F16 files need its 11 bits, BF16 weights above 2^-17 keep theirs in it exactly, activations
// lose a 2^-12th instead of a 2^-9th.
#pragma once
#include "device/activation.cuh"
#include "device/vectors.cuh"

KGC_API cudaError_t kgc_gemm_encoder(void **encode);
KGC_API cudaError_t kgc_gemm(const KgGemm *g, cudaStream_t stream);      // the path the device has
KGC_API cudaError_t kgc_gemm_sm90(const KgGemm *g, cudaStream_t stream); // gemm_sm90.cu
KGC_API cudaError_t kgc_gemm_mma(const KgGemm *g, cudaStream_t stream);  // gemm_mma.cu

// Preconditions of both paths.
static inline cudaError_t kg_gemm_check(const KgGemm *g) {
    const bool glu = g->epilogue >= KG_GEMM_SILU;
    bool ok = g->x && g->y && g->m && g->k && g->n_w >= 1 && g->n_w <= 3 && g->epilogue <= KG_GEMM_GELU && g->n_sms;
    ok = ok && g->k % 8 == 0 && g->x_stride % 8 == 0 && g->w_stride % 8 == 0 && g->x_stride >= g->k && g->w_stride >= g->k;
    ok = ok && ((uintptr_t)g->x | (uintptr_t)g->x_lo | (uintptr_t)g->y | (uintptr_t)g->y_lo) % 16 == 0 && g->y_stride % 2 == 0 && g->k < (1u << 30) && g->m < (1u << 30);
    uint64_t n = 0;
    for (uint32_t i = 0; i < g->n_w && ok; i++) {
        ok = g->w[i] && ((uintptr_t)g->w[i] | (uintptr_t)g->w_lo[i]) % 16 == 0 && !g->w_lo[i] == !g->w_lo[0] && g->n[i] && g->n[i] % 2 == 0 && (uintptr_t)g->bias[i] % 8 == 0;
        n += g->n[i];
    }
    if (ok && glu) ok = g->n_w == 2 && g->n[0] == g->n[1], n = g->n[0];
    return ok && n <= g->y_stride && n < (1u << 30) ? cudaSuccess : cudaErrorInvalidValue;
}

// How often K is gone through: x w, x_lo w, x w_lo.
__host__ __device__ inline uint32_t kg_gemm_parts(const KgGemm &g) { return !g.x_lo ? 1 : !g.w_lo[0] ? 2 : 3; }

// Columns of y that a tile of BN rows of w makes: half of them with a gate.
__host__ __device__ inline uint32_t kg_gemm_span(const KgGemm &g, uint32_t bn) { return g.epilogue >= KG_GEMM_SILU ? bn / 2 : bn; }

__host__ __device__ inline uint32_t kg_gemm_tiles_n(const KgGemm &g, uint32_t bn) {
    const uint32_t span = kg_gemm_span(g, bn), n_w = g.epilogue >= KG_GEMM_SILU ? 1 : g.n_w;
    uint32_t tiles = 0;
    for (uint32_t i = 0; i < n_w; i++) tiles += (g.n[i] + span - 1) / span;
    return tiles;
}

struct KgGemmTile {
    uint32_t m0, n0, w, column; // first row of x; first row of w[w]; first column of y
};

// Tile t, rows of x fastest, in bands of 16 row tiles: what runs together shares w's rows and a band of x in the L2 cache.
template <int BM> __device__ __forceinline__ KgGemmTile kg_gemm_tile(const KgGemm &g, uint32_t bn, uint32_t tiles_n, uint32_t t) {
    const uint32_t tiles_m = (g.m + BM - 1) / BM, band = t / (16 * tiles_n), rows = min(16u, tiles_m - band * 16);
    const uint32_t in_band = t - band * 16 * tiles_n, span = kg_gemm_span(g, bn);
    uint32_t tn = in_band / rows, w = 0, column = 0;
    for (; w + 1 < g.n_w && g.epilogue < KG_GEMM_SILU; w++) {
        const uint32_t here = (g.n[w] + span - 1) / span;
        if (tn < here) break;
        tn -= here;
        column += g.n[w];
    }
    return {(band * 16 + in_band % rows) * BM, tn * span, w, column + tn * span};
}

// Two rows' results of a thread, `row` and `row + 8`: N8 groups of eight columns, of which the thread holds two neighbours each
// at column `first` + 8 j + 2 (lane % 4) of the tile. value(h, i) is the raw sum of row + 8 h, i = 2 j + {0, 1}; with a gate
// the second half of them is `up`.
template <int N8, typename F>
__device__ __forceinline__ void kg_gemm_rows(const KgGemm &g, const KgGemmTile &tile, uint32_t row, uint32_t first, F value) {
    const uint32_t w = tile.w, c0 = first + 2 * (threadIdx.x % 4), e = g.epilogue;
    const size_t at = (size_t)row * g.y_stride + tile.column + c0, below = (size_t)8 * g.y_stride;
    const bool here[2] = {row < g.m, row + 8 < g.m};
    if (e >= KG_GEMM_SILU) {
        const uint32_t kind = e == KG_GEMM_SILU ? KG_ACTIVATION_SILU : KG_ACTIVATION_GELU;
#pragma unroll
        for (int j = 0; j < N8 / 2; j++) {
            const uint32_t n = tile.n0 + c0 + 8 * j;
            if (n >= g.n[0]) break;
            const float2 ba = g.bias[0] ? *(const float2 *)(g.bias[0] + n) : make_float2(0.f, 0.f);
            const float2 bb = g.bias[1] ? *(const float2 *)(g.bias[1] + n) : make_float2(0.f, 0.f);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float a0 = value(h, 2 * j) + ba.x, a1 = value(h, 2 * j + 1) + ba.y;
                const float b0 = value(h, N8 + 2 * j) + bb.x, b1 = value(h, N8 + 2 * j + 1) + bb.y;
                const float y0 = kg_activation_approx(kind, a0) * b0, y1 = kg_activation_approx(kind, a1) * b1;
                if (here[h]) kg_put16((__half *)g.y, (__half *)g.y_lo, at + h * below + 8 * j, y0, y1);
            }
        }
        return;
    }
    constexpr int BATCH = N8 % 8 == 0 ? 8 : N8 % 7 == 0 ? 7 : N8 < 8 ? N8 : 1; // groups whose residual is loaded before a store
    static_assert(N8 % BATCH == 0, "whole batches");
    float *y32 = (float *)g.y + at;
    const float *bias = g.bias[w] ? g.bias[w] + tile.n0 + c0 : nullptr;
    const uint32_t left = g.n[w] - min(g.n[w], tile.n0 + c0); // columns of w from here on
#pragma unroll
    for (int j0 = 0; j0 < N8; j0 += BATCH) {
        float2 y[2][BATCH];
        if (e == KG_GEMM_ADD) {
#pragma unroll
            for (int j = 0; j < BATCH; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    y[h][j] = make_float2(0.f, 0.f);
                    if (here[h] && 8 * (j0 + j) < left) y[h][j] = *(const float2 *)(y32 + h * below + 8 * (j0 + j));
                }
        }
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            const int i = 2 * (j0 + j), c = 8 * (j0 + j);
            if (c >= left) break;
            const float2 b = bias ? *(const float2 *)(bias + c) : make_float2(0.f, 0.f);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float a0 = value(h, i) + b.x, a1 = value(h, i + 1) + b.y;
                if (!here[h]) continue;
                if (e == KG_GEMM_F16)
                    kg_put16((__half *)g.y, (__half *)g.y_lo, at + h * below + c, a0, a1);
                else if (e == KG_GEMM_ADD)
                    *(float2 *)(y32 + h * below + c) = make_float2(y[h][j].x + a0, y[h][j].y + a1);
                else
                    *(float2 *)(y32 + h * below + c) = make_float2(a0, a1);
            }
        }
    }
}
