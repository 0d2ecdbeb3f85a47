// The stages of F16 matrices for many sequences: see f16_batch_sm90.cuh.
#include "matmul/f16_batch_sm90.cuh"

static bool kg_f16_batch_check(const KgStage *st) { return kg_f16_mma_check(st) && kg_f16_mma_rows_check(st) && !st->norm_w && !st->tap && st->n_seq && st->split; }

// How many slices of the input a block has room for, `parts` being those of a row: all of them, or fewer; 0: not two. two: rows of tiles a group.
KGC_API uint32_t kgc_f16_batch_slots(uint32_t n, uint32_t parts, uint32_t nt, uint32_t ks, uint32_t groups, int two) {
    if (!(nt == 1 || nt == 2 || nt == 4) || !(ks == 1 || ks == 2 || ks == 4) || parts % ks || groups == 0 || groups * ks > kg_f16_batch_warps(two ? 2 : 1, (int)nt)) return 0;
    const size_t slot = (size_t)ks * kg_f16_batch_slice((int)nt) * 16, reduce_smem = (size_t)groups * (parts - parts / ks) * (two ? 2 : 1) * 128 * nt * 4;
    const uint32_t all = parts / ks * kg_f16_batch_slices((n + 31) / 32, parts);
    const size_t most = kg_shared_most() - 2 * KG_F16_BATCH_SLOTS * 8 - 64;
    if (reduce_smem + 2 * slot > most && reduce_smem + all * slot > most) return 0;
    uint32_t slots = (uint32_t)((most - reduce_smem) / slot);
    if (slots > KG_F16_BATCH_SLOTS) slots = KG_F16_BATCH_SLOTS;
    return slots < all ? slots : all;
}

template <int MODE> static cudaError_t kg_f16_batch_run(const KgStage *st, uint32_t nt, uint32_t ks, uint32_t groups, uint32_t slots, int pdl, cudaStream_t stream) {
    const dim3 grid((st->n_seq + 8 * nt - 1) / (8 * nt), st->seg_block[st->n_seg]);
    const size_t smem = (size_t)slots * ks * kg_f16_batch_slice((int)nt) * 16 + (size_t)groups * (st->ks - st->ks / ks) * (MODE != KG_ONE ? 2 : 1) * 128 * nt * 4;
    const uint32_t slices = kg_f16_batch_slices((st->n + 31) / 32, st->ks);
    auto run = [&](void (*kernel)(KgStage, uint32_t, uint32_t)) { return kg_launch(kernel, grid, dim3(32 * ks * groups), smem, pdl, stream, *st, slots, slices); };
    switch (nt * 8 + ks) {
    case 9: return run(kg_f16_batch_kernel<MODE, 1, 1>);
    case 10: return run(kg_f16_batch_kernel<MODE, 1, 2>);
    case 12: return run(kg_f16_batch_kernel<MODE, 1, 4>);
    case 17: return run(kg_f16_batch_kernel<MODE, 2, 1>);
    case 18: return run(kg_f16_batch_kernel<MODE, 2, 2>);
    case 20: return run(kg_f16_batch_kernel<MODE, 2, 4>);
    case 33: return run(kg_f16_batch_kernel<MODE, 4, 1>);
    case 34: return run(kg_f16_batch_kernel<MODE, 4, 2>);
    case 36: return run(kg_f16_batch_kernel<MODE, 4, 4>);
    }
    return cudaErrorInvalidValue;
}

// nt: tiles of 8 sequences a block; ks: warps a row; groups of them a block; two: rows of tiles a group takes at a time, of one matrix.
KGC_API cudaError_t kgc_f16_batch(const KgStage *st, uint32_t nt, uint32_t ks, uint32_t groups, int two, int pdl, cudaStream_t stream) {
    const bool pair = st->activation != 0;
    if (!kg_f16_batch_check(st) || nt != st->split_nt || (two && (pair || st->n_seg != 1))) return cudaErrorInvalidValue;
    const uint32_t slots = kgc_f16_batch_slots(st->n, st->ks, nt, ks, groups, pair || two);
    if (!slots) return cudaErrorInvalidValue;
    if (pair) return kg_f16_batch_run<KG_PAIR>(st, nt, ks, groups, slots, pdl, stream);
    return two ? kg_f16_batch_run<KG_TWO>(st, nt, ks, groups, slots, pdl, stream) : kg_f16_batch_run<KG_ONE>(st, nt, ks, groups, slots, pdl, stream);
}
