// The stages of F16 matrices on tensor cores: see tile.cuh.
#include "tile.cuh"

static bool kg_tile_check(const KgStage *st) {
    bool ok = st->n && st->n_seg >= 1 && st->n_seg <= 3 && (!st->activation || st->n_seg == 1);
    for (uint32_t i = 0; ok && i < (st->activation ? 2 : st->n_seg); i++) ok = st->m[i].type == KG_F16 && st->m[i].stride >= st->n;
    return ok;
}

// deep: eight blocks of 32 columns in flight a lane instead of four (a matrix of a pair: four instead of two).
KGC_API cudaError_t kgc_tile(const KgStage *st, int deep, int pdl, cudaStream_t stream) {
    if (!kg_tile_check(st)) return cudaErrorInvalidValue;
    const bool pair = st->activation != 0;
    const size_t smem = kg_tile_smem(st->n, st->norm_w != nullptr, pair);
    const dim3 grid(st->seg_block[st->n_seg]), block(256);
    if (pair && deep) return kg_launch(kg_tile_kernel<true, 4>, grid, block, smem, pdl, stream, *st);
    if (pair) return kg_launch(kg_tile_kernel<true, 2>, grid, block, smem, pdl, stream, *st);
    if (deep) return kg_launch(kg_tile_kernel<false, 8>, grid, block, smem, pdl, stream, *st);
    return kg_launch(kg_tile_kernel<false, 4>, grid, block, smem, pdl, stream, *st);
}

template <bool PAIR> static cudaError_t kg_tile_batch(const KgStage *st, uint32_t nt, int pdl, cudaStream_t stream) {
    const size_t smem = kg_tile_batch_smem(nt, PAIR);
    const dim3 grid((st->n_seq + 8 * nt - 1) / (8 * nt), st->seg_block[st->n_seg]), block(256);
    if (nt == 1) return kg_launch(kg_tile_batch_kernel<PAIR, 1>, grid, block, smem, pdl, stream, *st);
    if (nt == 2) return kg_launch(kg_tile_batch_kernel<PAIR, 2>, grid, block, smem, pdl, stream, *st);
    if (nt == 4) return kg_launch(kg_tile_batch_kernel<PAIR, 4>, grid, block, smem, pdl, stream, *st);
    return cudaErrorInvalidValue;
}

// nt: tiles of 8 sequences a block, 1, 2 or 4; seg_block: in units of 16 nt rows.
KGC_API cudaError_t kgc_tile_batch(const KgStage *st, uint32_t nt, int pdl, cudaStream_t stream) {
    if (!kg_tile_check(st) || st->norm_w || st->tap || !st->n_seq || st->x_stride < (st->n + 31) / 32 * 32) return cudaErrorInvalidValue;
    return st->activation ? kg_tile_batch<true>(st, nt, pdl, stream) : kg_tile_batch<false>(st, nt, pdl, stream);
}
