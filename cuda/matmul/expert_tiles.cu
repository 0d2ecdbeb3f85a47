// Products of sorted slots with experts' quantized matrices, on the tensor cores: see expert_tiles.cuh.
#include "matmul/expert_tiles.cuh"

template <int T, bool GATED> static cudaError_t run(const KgExpertProducts *p, uint32_t blocks, int pdl, cudaStream_t stream) {
    const KgExpertTilePlan plan = kg_expert_tile_plan<T>(p->n);
    if (!plan.per_sm) return cudaErrorInvalidValue;
    return kg_launch(kg_expert_tiles<T, GATED>, dim3(blocks), dim3(KG_Q_THREADS), plan.bytes, pdl, stream, *p, plan.depth);
}

// Blocks a multiprocessor has room for; 0: none.
KGC_API uint32_t kgc_expert_tiles_per_sm(uint32_t n, uint32_t type) {
    uint32_t per_sm = 0;
    (void)kg_by_type(type, [&](auto typed) -> cudaError_t {
        if constexpr (kg_is_quant(decltype(typed)::type)) per_sm = kg_expert_tile_plan<decltype(typed)::type>(n).per_sm;
        return cudaSuccess;
    });
    return per_sm;
}

// Slots in tasks of at most 8; one matrix, or gate and up. p->tile and p->at_once are not read.
KGC_API cudaError_t kgc_expert_tiles(const KgExpertProducts *p, uint32_t blocks, int pdl, cudaStream_t stream) {
    bool ok = p->x && p->rows && p->n && p->n % 32 == 0 && p->share && p->n_slots && p->n_tasks && p->order && p->tasks && p->y[0] && blocks;
    ok = ok && p->n_m == (p->activation ? 2 : 1) && p->activation <= KG_ACTIVATION_CLAMPED_SWIGLU && p->y_stride >= p->rows;
    ok = ok && p->x_stride >= p->n && p->x_stride % 4 == 0 && (uintptr_t)p->x % 16 == 0 && !p->weights;
    for (uint32_t i = 0; ok && i < p->n_m; i++) ok = p->m[i].type == p->m[0].type && p->m[i].cols == p->n && p->m[i].rows % p->rows == 0;
    if (!ok) return cudaErrorInvalidValue;
    return kg_by_type(p->m[0].type, [&](auto typed) -> cudaError_t {
        constexpr int T = decltype(typed)::type;
        if constexpr (kg_is_quant(T)) return p->activation ? run<T, true>(p, blocks, pdl, stream) : run<T, false>(p, blocks, pdl, stream);
        return cudaErrorInvalidValue;
    });
}
