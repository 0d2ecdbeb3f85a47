// The stages of quantized matrices for several sequences: see q_batch_sm90.cuh.
#include "matmul/q_batch_sm90.cuh"

// Slots of the ring that a block has room for, 0 where it has not for two, and the shared memory that it then takes.
struct KgQBatchPlan {
    uint32_t depth;
    size_t bytes;
};
template <int T, int NT, int RG> static KgQBatchPlan kg_q_batch_plan() {
    const size_t meet = 2 * kg_q_batch_meet(NT, RG), each = KgQBatchSlot<T, RG>::BYTES + kg_q_batch_input(NT), most = kg_shared_most() - 512;
    size_t depth = most > meet ? (most - meet) / each : 0;
    if (depth > KG_Q_BATCH_DEPTH) depth = KG_Q_BATCH_DEPTH;
    if (depth < 2) return {0, 0};
    return {(uint32_t)depth, depth * each + meet};
}
// f with the type, the tiles of sequences and those of rows as constants.
template <typename F> static cudaError_t kg_q_batch_by(uint32_t type, uint32_t nt, uint32_t rg, F f) {
    return kg_by_type(type, [&](auto typed) -> cudaError_t {
        if constexpr (kg_is_quant(decltype(typed)::type)) {
            auto by_nt = [&](auto rows) -> cudaError_t {
                switch (nt) {
                case 1: return f(typed, KgTyped<1>(), rows);
                case 2: return f(typed, KgTyped<2>(), rows);
                case 4: return f(typed, KgTyped<4>(), rows);
                default: return cudaErrorInvalidValue;
                }
            };
            if (rg == 1) return by_nt(KgTyped<1>());
            if (rg == 2) return by_nt(KgTyped<2>());
        }
        return cudaErrorInvalidValue;
    });
}

// Whether a block has room for nt tiles of sequences, 1, 2 or 4, and rg groups of 32 rows, 1 or 2.
KGC_API int kgc_q_batch_fits(uint32_t type, uint32_t nt, uint32_t rg) {
    bool fits = false;
    (void)kg_q_batch_by(type, nt, rg, [&](auto t, auto nt, auto rg) {
        fits = kg_q_batch_plan<decltype(t)::type, decltype(nt)::type, decltype(rg)::type>().depth > 0;
        return cudaSuccess;
    });
    return fits;
}

// Matrices of one type; st.split_nt: tiles of 8 sequences a block, 1, 2 or 4, as the input was cut up for; rg: groups of 32 rows a turn, 1 or 2;
// st.ks: warps a row of the token alone; st.seg_block: blocks of each matrix, each with a tile of rows at least.
KGC_API cudaError_t kgc_q_batch(const KgStage *st, uint32_t type, uint32_t rg, int pdl, cudaStream_t stream) {
    bool ok = st->n && st->n % 32 == 0 && kg_is_quant((int)type) && st->n % kg_row_block((int)type) == 0 && st->n_seg >= 1 && st->n_seg <= 3 && (!st->activation || st->n_seg == 1);
    ok = ok && st->ks && st->ks <= 16 && st->n_seq && st->split && !st->norm_w && !st->tap;
    for (uint32_t i = 0; ok && i < (st->activation ? 2 : st->n_seg); i++) ok = st->m[i].type == type && st->m[i].cols == st->n;
    if (!ok || !kg_f16_mma_rows_check(st)) return cudaErrorInvalidValue;
    return kg_q_batch_by(type, st->split_nt, rg, [&](auto t, auto nt, auto rg) -> cudaError_t {
        constexpr int T = decltype(t)::type, NT = decltype(nt)::type, RG = decltype(rg)::type;
        const KgQBatchPlan plan = kg_q_batch_plan<T, NT, RG>();
        if (!plan.depth) return cudaErrorInvalidValue;
        const dim3 grid((st->n_seq + 8 * NT - 1) / (8 * NT), st->seg_block[st->n_seg]);
        return kg_launch(kg_q_batch_kernel<T, NT, RG>, grid, dim3(kg_q_batch_threads(RG)), plan.bytes, pdl, stream, *st, plan.depth);
    });
}
