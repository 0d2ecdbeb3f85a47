// The stages of F16 matrices on tensor cores: see f16_mma.cuh.
#include "matmul/f16_mma.cuh"

static size_t kg_f16_mma_most() { return kg_shared_most() - 256; } // the rest: barriers

static bool kg_f16_mma_batch_check(const KgStage *st) {
    return kg_f16_mma_check(st) && !st->norm_w && !st->tap && st->n_seq && st->x_stride >= (st->n + 31) / 32 * 32;
}

// deep: eight blocks of 32 columns in flight a lane instead of four (a matrix of a pair: four instead of two).
KGC_API cudaError_t kgc_f16_mma(const KgStage *st, int deep, int pdl, cudaStream_t stream) {
    if (!kg_f16_mma_check(st)) return cudaErrorInvalidValue;
    const bool pair = st->activation != 0;
    const size_t smem = kg_f16_mma_smem(st->n, st->norm_w != nullptr, pair ? KG_PAIR : KG_ONE, 0, (int)st->ks);
    const dim3 grid(st->seg_block[st->n_seg]), block(32 * st->ks);
    auto run = [&](void (*kernel)(KgStage)) { return kg_launch(kernel, grid, block, smem, pdl, stream, *st); };
    if (pair && !st->norm_w) return cudaErrorInvalidValue;
    if (pair) return run(st->ks == 16 ? kg_f16_mma_kernel<true, 2, 16> : deep ? kg_f16_mma_kernel<true, 4, 8> : kg_f16_mma_kernel<true, 2, 8>);
    if (st->ks == 16) return run(deep ? kg_f16_mma_kernel<false, 8, 16> : kg_f16_mma_kernel<false, 4, 16>);
    return run(deep ? kg_f16_mma_kernel<false, 8, 8> : kg_f16_mma_kernel<false, 4, 8>);
}

// Bytes of shared memory of a block of kgc_f16_mma_batch.
static size_t kg_f16_mma_batch_smem(uint32_t n, int mode, uint32_t nt, uint32_t parts) { return kg_f16_mma_smem(n, false, mode, (int)nt, (int)parts); }

// Most tiles of 8 sequences that such a block takes: 4, 2, 1, or 0 where there is no room for one.
KGC_API uint32_t kgc_f16_mma_batch_most(uint32_t n, int pair, uint32_t parts) {
    for (uint32_t nt = parts == 16 ? 1 : 4; nt; nt /= 2)
        if (kg_f16_mma_batch_smem(n, pair ? KG_PAIR : KG_ONE, nt, parts) <= kg_f16_mma_most()) return nt;
    return 0;
}
// And of kgc_f16_mma_split.
KGC_API uint32_t kgc_f16_mma_split_most(uint32_t n, uint32_t parts) {
    for (uint32_t nt = 4; nt; nt /= 2)
        if (kg_f16_mma_split_smem(n, (int)nt, (int)parts) <= kg_f16_mma_most()) return nt;
    return 0;
}

// nt: tiles of 8 sequences a block. The input is that of a norm, in st->split.
KGC_API cudaError_t kgc_f16_mma_batch(const KgStage *st, uint32_t nt, int pdl, cudaStream_t stream) {
    const bool pair = st->activation != 0;
    if (!kg_f16_mma_batch_check(st) || !st->split || nt != st->split_nt || nt == 0 || nt > kgc_f16_mma_batch_most(st->n, pair, st->ks)) return cudaErrorInvalidValue;
    // Many turns: two rows of tiles in each.
    const bool two = !pair && nt == 4 && st->n_seg == 1 && st->m[0].rows / 16 >= 8 * kg_f16_mma_groups(4, 8) * st->seg_block[1];
    const int mode = pair ? KG_PAIR : two && kg_f16_mma_batch_smem(st->n, KG_TWO, nt, st->ks) <= kg_f16_mma_most() ? KG_TWO : KG_ONE;
    const size_t smem = kg_f16_mma_batch_smem(st->n, mode, nt, st->ks);
    const dim3 grid((st->n_seq + 8 * nt - 1) / (8 * nt), st->seg_block[st->n_seg]), block(32 * st->ks * kg_f16_mma_groups((int)nt, (int)st->ks));
    auto run = [&](void (*kernel)(KgStage)) { return kg_launch(kernel, grid, block, smem, pdl, stream, *st); };
    if (st->ks == 16) return run(pair ? kg_f16_mma_batch_kernel<KG_PAIR, 1, 16> : kg_f16_mma_batch_kernel<KG_ONE, 1, 16>);
    if (nt == 1) return run(pair ? kg_f16_mma_batch_kernel<KG_PAIR, 1, 8> : kg_f16_mma_batch_kernel<KG_ONE, 1, 8>);
    if (nt == 2) return run(pair ? kg_f16_mma_batch_kernel<KG_PAIR, 2, 8> : kg_f16_mma_batch_kernel<KG_ONE, 2, 8>);
    if (nt == 4) return run(pair ? kg_f16_mma_batch_kernel<KG_PAIR, 4, 8> : mode == KG_TWO ? kg_f16_mma_batch_kernel<KG_TWO, 4, 8> : kg_f16_mma_batch_kernel<KG_ONE, 4, 8>);
    return cudaErrorInvalidValue;
}

// The parts of m[0] into out[0]: [ks, n_seq, out_stride]. warps: of a block, at most 16; each takes a tile of rows. The input is x.
KGC_API cudaError_t kgc_f16_mma_split(const KgStage *st, uint32_t nt, uint32_t warps, int pdl, cudaStream_t stream) {
    if (!kg_f16_mma_batch_check(st) || st->split || st->n_seg != 1 || st->activation) return cudaErrorInvalidValue;
    if (nt > kgc_f16_mma_split_most(st->n, st->ks) || warps == 0 || warps > 16) return cudaErrorInvalidValue;
    const size_t smem = kg_f16_mma_split_smem(st->n, (int)nt, (int)st->ks);
    const dim3 grid((st->n_seq + 8 * nt - 1) / (8 * nt), (st->m[0].rows + 16 * warps - 1) / (16 * warps), st->ks);
    auto run = [&](void (*kernel)(KgStage)) { return kg_launch(kernel, grid, dim3(32 * warps), smem, pdl, stream, *st); };
    return nt == 1 ? run(kg_f16_mma_split_kernel<1>) : nt == 2 ? run(kg_f16_mma_split_kernel<2>) : nt == 4 ? run(kg_f16_mma_split_kernel<4>) : cudaErrorInvalidValue;
}
