// The stages of quantized matrices for several sequences: see q_batch_sm90.cuh.
#include "matmul/q_batch_launch.cuh"

// Whether a block has room for nt tiles of sequences, 1, 2 or 4, and rg groups of 32 rows, 1 or 2.
KGC_API int kgc_q_batch_fits(uint32_t type, uint32_t nt, uint32_t rg) {
    bool fits = false;
    (void)kg_q_batch_by(type, rg, [&](auto t, auto groups) {
        constexpr int T = decltype(t)::type, RG = decltype(groups)::type;
        const KgQBatchPlan plan = nt == 1 ? kg_q_batch_plan<T, 1, RG>() : nt == 2 ? kg_q_batch_plan<T, 2, RG>() : kg_q_batch_plan<T, 4, RG>();
        fits = plan.depth > 0;
        return cudaSuccess;
    });
    return fits;
}

// Matrices of one type; st.split_nt: tiles of 8 sequences a block, 1, 2 or 4, as the input was cut up for; rg: groups of 32 rows a turn, 1 or 2;
// st.ks: warps a row of the token alone; st.seg_block: blocks of each matrix, each with a tile of rows at least.
KGC_API cudaError_t kgc_q_batch(const KgStage *st, uint32_t type, uint32_t rg, int pdl, cudaStream_t stream) {
    bool ok = st->n && st->n % 32 == 0 && kg_is_quant((int)type) && st->n % kg_row_block((int)type) == 0;
    ok = ok && st->n_seg >= 1 && st->n_seg <= 3 && (!st->activation || st->n_seg == 1);
    ok = ok && st->ks && st->ks <= 16 && st->n_seq && st->split && !st->norm_w && !st->tap;
    for (uint32_t i = 0; ok && i < (st->activation ? 2 : st->n_seg); i++) ok = st->m[i].type == type && st->m[i].cols == st->n;
    if (!ok || !kg_f16_mma_rows_check(st)) return cudaErrorInvalidValue;
    switch (st->split_nt) {
    case 1: return kgc_q_batch_of1(st, type, rg, pdl, stream);
    case 2: return kgc_q_batch_of2(st, type, rg, pdl, stream);
    case 4: return kgc_q_batch_of4(st, type, rg, pdl, stream);
    default: return cudaErrorInvalidValue;
    }
}
