// The matrix product of prefill where there is no wgmma (compute capability 8.0 and up): mma.sync m16n8k16, fed by cp.async.
// Formula and epilogues: gemm.cuh.
//
//   x [m, k] f16, w [n, k] f16, y [m, n] f32 or f16, sums f32 in ascending K, 16 at a time, never split: a row of y has the
//   same bits whatever m is and whatever the tile.
// Geometry: a block a tile of 128 x BN, 256 threads as 2 x 4 warps of 64 x BN / 4; K in steps of 64 through 3 stages of shared
// memory (96 KiB at BN 128), 16-byte chunks swizzled by the row. A warp's columns are half from the lower and half from the
// upper half of the tile: with a gate the one is the gate's and the other the up projection's.
// Preconditions: kg_gemm_check. Bytes moved: w once for every 2,048 rows of x, x once for every wave of tiles (L2), y once.
// Reference: tests/gpu/operations/prefill.rs.
#include "matmul/prefill/gemm.cuh"

namespace {
constexpr int STAGES = 3;

template <int BN> __global__ void __launch_bounds__(256) kg_gemm_mma(const __grid_constant__ KgGemm g) {
    constexpr int BYTES = (128 + BN) * 128, HALF = BN / 2, N8 = BN / 32; // N8: groups of eight columns a warp
    KG_DYNAMIC_SHARED(uint8_t, raw);
    const uint32_t ring = kg_shared_at(raw);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, wm = warp / 4, wn = warp % 4;
    kg_begin();
    const uint32_t tiles_n = kg_gemm_tiles_n(g, BN), half = (g.k + 63) / 64, steps = kg_gemm_parts(g) * half;
    const KgGemmTile tile = kg_gemm_tile<128>(g, BN, tiles_n, blockIdx.x);
    const bool glu = g.epilogue >= KG_GEMM_SILU;
    const uint32_t upper_row = tile.n0 + (glu ? 0 : HALF), n = g.n[tile.w];

    const uint32_t chunk = threadIdx.x % 8, line = threadIdx.x / 8;
    auto load = [&](uint32_t i) {
        const uint32_t at = ring + i % STAGES * BYTES, part = i / half, k = 64 * (i - part * half) + 8 * chunk;
        const bool in_k = k < g.k;
        const __half *x = (const __half *)(part == 1 ? g.x_lo : g.x);
        const __half *lower = (const __half *)(part == 2 ? g.w_lo : g.w)[tile.w], *upper = glu ? (const __half *)(part == 2 ? g.w_lo : g.w)[1] : lower;
#pragma unroll
        for (int r = 0; r < 128; r += 32) {
            const uint32_t row = r + line, from = tile.m0 + row;
            const bool in = in_k && from < g.m;
            kg_copy16(at + row * 128 + ((chunk ^ (row & 7)) << 4), x + (in ? (size_t)from * g.x_stride + k : 0), in);
        }
#pragma unroll
        for (int r = 0; r < BN; r += 32) {
            const uint32_t row = r + line, from = row < HALF ? tile.n0 + row : upper_row + row - HALF;
            const bool in = in_k && from < n;
            const __half *w = row < HALF ? lower : upper;
            kg_copy16(at + 16384 + row * 128 + ((chunk ^ (row & 7)) << 4), w + (in ? (size_t)from * g.w_stride + k : 0), in);
        }
    };

    float sum[4][N8][4] = {};
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < steps) load(i);
        kg_copy_commit();
    }
    for (uint32_t i = 0; i < steps; i++) {
        kg_copy_wait<STAGES - 2>();
        __syncthreads();
        if (i + STAGES - 1 < steps) load(i + STAGES - 1);
        kg_copy_commit();
        const uint32_t at = ring + i % STAGES * BYTES;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t a[4][4], b[N8][2];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const uint32_t row = wm * 64 + r * 16 + lane % 16, c = 2 * k + lane / 16;
                kg_ldmatrix(a[r], at + row * 128 + ((c ^ (row & 7)) << 4));
            }
#pragma unroll
            for (int c2 = 0; c2 < N8 / 2; c2++) {
                // Matrices 0, 1: the lower half's eight columns, K 0..7 and 8..15; 2, 3: the upper half's.
                const uint32_t row = (lane / 16) * HALF + wn * (HALF / 4) + c2 * 8 + lane % 8, c = 2 * k + lane / 8 % 2;
                uint32_t r[4];
                kg_ldmatrix(r, at + 16384 + row * 128 + ((c ^ (row & 7)) << 4));
                b[c2][0] = r[0], b[c2][1] = r[1], b[N8 / 2 + c2][0] = r[2], b[N8 / 2 + c2][1] = r[3];
            }
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int c = 0; c < N8; c++) kg_mma(sum[r][c], a[r], b[c][0], b[c][1]);
        }
    }

    const uint32_t first = wn * (HALF / 4);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const uint32_t row = tile.m0 + wm * 64 + r * 16 + lane / 4;
        if (glu) {
            kg_gemm_rows<N8>(g, tile, row, first, [&](int h, int i) { return sum[r][i / 2][2 * h + i % 2]; });
        } else {
            kg_gemm_rows<N8 / 2>(g, tile, row, first, [&](int h, int i) { return sum[r][i / 2][2 * h + i % 2]; });
            kg_gemm_rows<N8 / 2>(g, tile, row, HALF + first, [&](int h, int i) { return sum[r][N8 / 2 + i / 2][2 * h + i % 2]; });
        }
    }
}

template <int BN> cudaError_t run(const KgGemm *g, cudaStream_t stream) {
    const uint32_t tiles = (g->m + 127) / 128 * kg_gemm_tiles_n(*g, BN);
    return kg_launch(kg_gemm_mma<BN>, dim3(tiles), dim3(256), STAGES * (128 + BN) * 128, 0, stream, *g);
}
} // namespace

cudaError_t kgc_gemm_mma(const KgGemm *g, cudaStream_t stream) {
    cudaError_t e = kg_gemm_check(g);
    if (e != cudaSuccess) return e;
    const uint64_t wide = (uint64_t)((g->m + 127) / 128) * kg_gemm_tiles_n(*g, 128);
    const uint32_t tile = g->tile ? g->tile : wide >= g->n_sms ? 128 : 64;
    return tile == 64 ? run<64>(g, stream) : tile == 128 ? run<128>(g, stream) : cudaErrorInvalidValue;
}

// The path that the device has: `encode` set where its compute capability is 9.0.
cudaError_t kgc_gemm(const KgGemm *g, cudaStream_t stream) {
    return g->encode ? kgc_gemm_sm90(g, stream) : kgc_gemm_mma(g, stream);
}
