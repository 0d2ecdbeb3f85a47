// The stages of quantized matrices for several sequences: see q_batch_sm90.cuh.
#include "matmul/q_batch_sm90.cuh"

static bool kg_q_batch_nt(uint32_t nt) { return nt == 1 || nt == 2 || nt == 4; }

// How a block's shared memory is used.
struct KgQBatchPlan {
    uint32_t per_sm, depth, input_resident;
    size_t bytes;
};
template <int T, int NT> static KgQBatchPlan kg_q_batch_plan(uint32_t n) {
    const size_t reduce_smem = kg_q_batch_meet(NT), input = kg_q_batch_input(NT), slot = KgQBatchSlot<T>::BYTES, all = (n / 32 + KG_Q_BATCH_SLICE - 1) / KG_Q_BATCH_SLICE * input;
    // Three slots at least, with another block beside this one, or alone.
    for (uint32_t per_sm = kg_q_batch_per_sm(NT); per_sm; per_sm--) {
        // A block takes 1 KiB more than it asks for, and has its barriers.
        const size_t most = (kg_shared_most() + 1024) / per_sm - 1024 - 256;
        for (uint32_t input_resident = 1; input_resident + 1; input_resident--) {
            const size_t fixed = reduce_smem + (input_resident ? all : 0), each = slot + (input_resident ? 0 : input);
            size_t depth = most > fixed ? (most - fixed) / each : 0;
            if (depth > KG_Q_BATCH_DEPTH) depth = KG_Q_BATCH_DEPTH;
            if (depth >= 3 || (depth == 2 && per_sm == 1 && !input_resident)) return {per_sm, (uint32_t)depth, input_resident, depth * each + fixed};
        }
    }
    return {0, 0, 0, 0};
}
template <int NT> static KgQBatchPlan kg_q_batch_plan_of(uint32_t n, uint32_t type) {
    KgQBatchPlan plan = {0, 0, 0, 0};
    (void)kg_by_type(type, [&](auto typed) -> cudaError_t {
        if constexpr (kg_is_quant(decltype(typed)::type)) plan = kg_q_batch_plan<decltype(typed)::type, NT>(n);
        return cudaSuccess;
    });
    return plan;
}

// Blocks a multiprocessor has room for; nt: 1, 2 or 4.
KGC_API uint32_t kgc_q_batch_per_sm(uint32_t n, uint32_t type, uint32_t nt) {
    return (nt == 1 ? kg_q_batch_plan_of<1>(n, type) : nt == 2 ? kg_q_batch_plan_of<2>(n, type) : kg_q_batch_plan_of<4>(n, type)).per_sm;
}

template <int T, int NT> static cudaError_t kg_q_batch_launch(const KgStage *st, int pdl, cudaStream_t stream) {
    const KgQBatchPlan plan = kg_q_batch_plan<T, NT>(st->n);
    if (!plan.per_sm) return cudaErrorInvalidValue;
    const dim3 grid((st->n_seq + 8 * NT - 1) / (8 * NT), st->seg_block[st->n_seg]);
    return kg_launch(kg_q_batch_kernel<T, NT>, grid, dim3(KG_Q_THREADS), plan.bytes, pdl, stream, *st, plan.depth, plan.input_resident);
}

// Matrices of one type; st.split_nt: tiles of 8 sequences a block, 1, 2 or 4, as the input was cut up for; st.ks: warps a row of the token
// alone; st.seg_block: blocks of each matrix, each with a tile of rows at least.
KGC_API cudaError_t kgc_q_batch(const KgStage *st, uint32_t type, int pdl, cudaStream_t stream) {
    bool ok = st->n && st->n % 32 == 0 && kg_is_quant((int)type) && st->n % kg_row_block((int)type) == 0 && st->n_seg >= 1 && st->n_seg <= 3 && (!st->activation || st->n_seg == 1);
    ok = ok && st->ks && st->ks <= 16 && st->n_seq && st->split && kg_q_batch_nt(st->split_nt) && !st->norm_w && !st->tap;
    for (uint32_t i = 0; ok && i < (st->activation ? 2 : st->n_seg); i++) ok = st->m[i].type == type && st->m[i].cols == st->n;
    if (!ok || !kg_f16_mma_rows_check(st)) return cudaErrorInvalidValue;
    return kg_by_type(type, [&](auto typed) -> cudaError_t {
        constexpr int T = decltype(typed)::type;
        if constexpr (kg_is_quant(T)) {
            switch (st->split_nt) {
            case 1: return kg_q_batch_launch<T, 1>(st, pdl, stream);
            case 2: return kg_q_batch_launch<T, 2>(st, pdl, stream);
            default: return kg_q_batch_launch<T, 4>(st, pdl, stream);
            }
        }
        return cudaErrorInvalidValue;
    });
}
