// The matrix product of prefill on compute capability 9.0: bulk tensor copies feed wgmma. Formula and epilogues: gemm.cuh.
//
//   x [m, k] f16, w [n, k] f16, y [m, n] f32 or f16, sums f32 in ascending K, 16 at a time (x w, then x_lo w, then x w_lo), never split: a row of y has the
//   same bits whatever m is and whatever the tile.
// Geometry: one block a multiprocessor, 384 threads: a warpgroup whose first thread copies, two that multiply 64 rows each of
// a 128 x BN tile. K in steps of 64 through a ring of 4 to 10 stages in shared memory that runs on across tiles. With a gate,
// half of a tile's rows of w are the gate's and half the up projection's, so that one thread holds both sums.
// Preconditions: kg_gemm_check; rows 16-byte aligned; `encode` from kgc_gemm_encoder.
// Bytes moved: w once for every 2,048 rows of x, x once for every wave of tiles (L2), y once (twice for KG_GEMM_ADD).
// Measured on one H200, 2,048 rows, sustained: 640 TFLOP/s at n 2 x 18944 (gate), k 3584; 670 at n 3584, k 18944; 430 and 530 at
// n 2 x 4864, k 896 and n 896, k 4864. Tiles of 128 to 256 columns meet at the same rate where their waves are full, so the
// number of waves chooses. Sharing tiles of w between two blocks (clusters) was not tried. At 17 rows 2.2 TB/s of weights.
// Reference: tests/gpu/operations/prefill.rs, and gemm_mma.cu for the same arguments.
#include "matmul/prefill/gemm.cuh"
#include "device/wgmma.cuh"
#include <cuda.h>

struct KgGemmMaps {
    CUtensorMap x[2], w[3], w_lo[3]; // x: and x_lo
    uint32_t x_rows; // rows of x that a tile copies: 128, or those there are where there are fewer
};

// Ring of the tile's stages: as many as 220 KiB hold.
__host__ __device__ constexpr int kg_stage_bytes(int bn) { return (128 + bn) * 128; }
__host__ __device__ constexpr int kg_stages(int bn) { return 225280 / kg_stage_bytes(bn) < 10 ? 225280 / kg_stage_bytes(bn) : 10; }

template <int BN>
__global__ void __launch_bounds__(384, 1) kg_gemm_sm90(const __grid_constant__ KgGemmMaps maps, const __grid_constant__ KgGemm g) {
#ifdef KG_SM90A
    constexpr int STAGES = kg_stages(BN), BYTES = kg_stage_bytes(BN), HALF = BN / 2;
    KG_DYNAMIC_SHARED(uint8_t, raw);
    KG_SHARED(uint64_t[2 * STAGES], bars);
    const uint32_t ring = (kg_shared_at(raw) + 1023) & ~1023u;
    const uint32_t full = kg_shared_at(bars), empty = full + 8 * STAGES;
    const uint32_t group = threadIdx.x / 128, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            kg_bar_init(full + 8 * s, 1);
            kg_bar_init(empty + 8 * s, 8);
        }
        kg_bar_init_done();
    }
    __syncthreads();
    kg_begin();

    const uint32_t tiles_n = kg_gemm_tiles_n(g, BN), tiles = (g.m + 127) / 128 * tiles_n;
    const uint32_t half = (g.k + 63) / 64, steps = kg_gemm_parts(g) * half;
    uint32_t s = 0, phase = 0;
    if (group == 0) {
        kg_fewer_registers<40>();
        if (threadIdx.x == 0) {
            for (uint32_t t = blockIdx.x; t < tiles; t += gridDim.x) {
                const KgGemmTile tile = kg_gemm_tile<128>(g, BN, tiles_n, t);
                const bool glu = g.epilogue >= KG_GEMM_SILU;
                const uint32_t upper_row = tile.n0 + (glu ? 0 : HALF);
                for (uint32_t i = 0; i < steps; i++) {
                    const uint32_t at = ring + s * BYTES, bar = full + 8 * s;
                    kg_bar_wait(empty + 8 * s, phase ^ 1);
                    kg_bar_expect(bar, (maps.x_rows + BN) * 128);
                    const uint32_t part = i / half, column = 64 * (i - part * half);
                    const CUtensorMap *w = part == 2 ? maps.w_lo : maps.w;
                    kg_copy_box(at, &maps.x[part == 1], bar, column, tile.m0);
                    kg_copy_box(at + 16384, &w[tile.w], bar, column, tile.n0);
                    kg_copy_box(at + 16384 + HALF * 128, &w[glu ? 1 : tile.w], bar, column, upper_row);
                    if (++s == STAGES) s = 0, phase ^= 1;
                }
            }
        }
    } else {
        kg_more_registers<232>();
        float sum[BN / 2];
        const uint32_t a0 = ring + (group - 1) * 8192, b0 = ring + 16384;
        const uint32_t row0 = (group - 1) * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
        for (uint32_t t = blockIdx.x; t < tiles; t += gridDim.x) {
            uint32_t before = 0;
            for (uint32_t i = 0; i < steps; i++) {
                kg_bar_wait(full + 8 * s, phase);
                const uint64_t a = kg_wgmma_operand(a0 + s * BYTES), b = kg_wgmma_operand(b0 + s * BYTES);
                kg_wgmma_fence();
#pragma unroll
                for (int j = 0; j < 4; j++) KgWgmma<BN>::mma(sum, a + 2 * j, b + 2 * j, i | j);
                kg_wgmma_commit();
                kg_wgmma_wait<1>();
                if (i && lane == 0) kg_bar_arrive(empty + 8 * before);
                before = s;
                if (++s == STAGES) s = 0, phase ^= 1;
            }
            kg_wgmma_wait<0>();
            if (lane == 0) kg_bar_arrive(empty + 8 * before);
            const KgGemmTile tile = kg_gemm_tile<128>(g, BN, tiles_n, t);
            kg_gemm_rows<BN / 8>(g, tile, tile.m0 + row0, 0, [&](int h, int i) { return sum[4 * (i / 2) + 2 * h + i % 2]; });
        }
    }
#else
    __trap(); // kgc_gemm_encoder keeps callers away from here
#endif
}

static bool kg_encode(void *encode, CUtensorMap *map, const void *base, uint32_t rows, uint32_t k, uint32_t stride, uint32_t box_rows) {
    const cuuint64_t sizes[2] = {k, rows}, pitch[1] = {(cuuint64_t)stride * 2};
    const cuuint32_t box[2] = {64, box_rows}, steps[2] = {1, 1};
    return ((decltype(&cuTensorMapEncodeTiled))encode)(
               map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, (void *)base, sizes, pitch, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
               CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// The rows of shared memory below them hold anything: a row of y depends on its own row of x alone.
static uint32_t kg_x_rows(const KgGemm *g) { return g->m < 128 ? (g->m + 7) / 8 * 8 : 128; }

template <int BN> static cudaError_t kg_gemm_run(const KgGemm *g, cudaStream_t stream) {
    KgGemmMaps maps;
    maps.x_rows = kg_x_rows(g);
    bool ok = kg_encode(g->encode, &maps.x[0], g->x, g->m, g->k, g->x_stride, maps.x_rows);
    ok = ok && kg_encode(g->encode, &maps.x[1], g->x_lo ? g->x_lo : g->x, g->m, g->k, g->x_stride, maps.x_rows);
    for (uint32_t i = 0; i < 3; i++) {
        const uint32_t w = i < g->n_w ? i : 0;
        ok = ok && kg_encode(g->encode, &maps.w[i], g->w[w], g->n[w], g->k, g->w_stride, BN / 2);
        ok = ok && kg_encode(g->encode, &maps.w_lo[i], g->w_lo[w] ? g->w_lo[w] : g->w[w], g->n[w], g->k, g->w_stride, BN / 2);
    }
    if (!ok) return cudaErrorInvalidValue;
    const uint32_t tiles = (g->m + 127) / 128 * kg_gemm_tiles_n(*g, BN);
    return kg_launch(kg_gemm_sm90<BN>, dim3(tiles < g->n_sms ? tiles : g->n_sms), dim3(384),
                             kg_stages(BN) * kg_stage_bytes(BN) + 1024, 0, stream, maps, *g);
}

// The driver's function that describes a tensor to the copy engine; the library links no driver. cudaErrorNotSupported where
// the current device or this build has no wgmma. Call once per device, keep the address.
cudaError_t kgc_gemm_encoder(void **encode) {
    *encode = nullptr;
    // The kernel's body, and with it its barriers, exists in sm_90a code alone.
    cudaFuncAttributes attributes;
    cudaError_t e = cudaFuncGetAttributes(&attributes, (const void *)kg_gemm_sm90<64>);
    if (e != cudaSuccess) return cudaGetLastError(), e;
    if (attributes.sharedSizeBytes == 0) return cudaErrorNotSupported;
    cudaDriverEntryPointQueryResult found;
    e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", encode, 12000, cudaEnableDefault, &found);
    if (e == cudaSuccess && (found != cudaDriverEntryPointSuccess || !*encode)) e = cudaErrorNotSupported;
    if (e != cudaSuccess) *encode = nullptr;
    return e;
}

// Waves of tiles times what a tile costs: its columns, or the rows that it copies where these take longer (measured).
static uint32_t kg_gemm_choose(const KgGemm *g) {
    uint32_t best = 0;
    uint64_t least = ~0ull;
    for (uint32_t bn : {256u, 224u, 192u, 128u, 64u, 32u}) {
        const uint64_t tiles = (uint64_t)((g->m + 127) / 128) * kg_gemm_tiles_n(*g, bn);
        const uint64_t copied = (kg_x_rows(g) + bn) * 9 / 16;
        const uint64_t cost = (tiles + g->n_sms - 1) / g->n_sms * (bn > copied ? bn : copied);
        if (cost < least) least = cost, best = bn;
    }
    return best;
}

cudaError_t kgc_gemm_sm90(const KgGemm *g, cudaStream_t stream) {
    cudaError_t e = kg_gemm_check(g);
    if (e != cudaSuccess) return e;
    if (!g->encode) return cudaErrorNotSupported;
    switch (g->tile ? g->tile : kg_gemm_choose(g)) {
    case 32: return kg_gemm_run<32>(g, stream);
    case 64: return kg_gemm_run<64>(g, stream);
    case 128: return kg_gemm_run<128>(g, stream);
    case 192: return kg_gemm_run<192>(g, stream);
    case 224: return kg_gemm_run<224>(g, stream);
    case 256: return kg_gemm_run<256>(g, stream);
    }
    return cudaErrorInvalidValue;
}
