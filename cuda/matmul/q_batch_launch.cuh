// What starts the kernels of q_batch_sm90.cuh: a file each number of tiles of sequences has its kernels, q_batch_sm90.cu finds them.
#pragma once
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

// f with the type and the groups of rows as constants.
template <typename F> static cudaError_t kg_q_batch_by(uint32_t type, uint32_t rg, F f) {
    return kg_by_type(type, [&](auto typed) -> cudaError_t {
        if constexpr (kg_is_quant(decltype(typed)::type)) {
            if (rg == 1) return f(typed, KgTyped<1>());
            if (rg == 2) return f(typed, KgTyped<2>());
        }
        return cudaErrorInvalidValue;
    });
}

// The launch of a stage that kgc_q_batch has looked at.
template <int NT> static cudaError_t kg_q_batch_launch(const KgStage *st, uint32_t type, uint32_t rg, int pdl, cudaStream_t stream) {
    return kg_q_batch_by(type, rg, [&](auto t, auto groups) -> cudaError_t {
        constexpr int T = decltype(t)::type, RG = decltype(groups)::type;
        const KgQBatchPlan plan = kg_q_batch_plan<T, NT, RG>();
        if (!plan.depth) return cudaErrorInvalidValue;
        const dim3 grid((st->n_seq + 8 * NT - 1) / (8 * NT), st->seg_block[st->n_seg]);
        return kg_launch(kg_q_batch_kernel<T, NT, RG>, grid, dim3(kg_q_batch_threads(RG)), plan.bytes, pdl, stream, *st, plan.depth);
    });
}

KGC_API cudaError_t kgc_q_batch_of1(const KgStage *st, uint32_t type, uint32_t rg, int pdl, cudaStream_t stream);
KGC_API cudaError_t kgc_q_batch_of2(const KgStage *st, uint32_t type, uint32_t rg, int pdl, cudaStream_t stream);
KGC_API cudaError_t kgc_q_batch_of4(const KgStage *st, uint32_t type, uint32_t rg, int pdl, cudaStream_t stream);
