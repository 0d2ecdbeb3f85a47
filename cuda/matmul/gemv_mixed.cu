// A stage whose matrices differ in type (Q4_K_M's value matrices, say): each block picks its code by its matrix's type.
#include "matmul/gemv.cuh"

template <int NS> __global__ void __launch_bounds__(512) kg_gemv_mixed(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(float, kg_shared);
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && blockIdx.x >= st.seg_block[seg + 1]) seg++;
    switch (st.m[seg].type) {
#define KG_CASE(T) \
    case T: return kg_gemv_run<T, NS, false>(st, seg, kg_shared);
        KG_ROW_TYPES(KG_CASE)
#undef KG_CASE
    default: return;
    }
}

// The two types that the usual recipes mix: less code than all of them, see kg_stage_norm.
template <int A, int B, int NS> __global__ void __launch_bounds__(512) kg_gemv_two(const __grid_constant__ KgStage st) {
    KG_DYNAMIC_SHARED(float, kg_shared);
    uint32_t seg = 0;
    while (seg + 1 < st.n_seg && blockIdx.x >= st.seg_block[seg + 1]) seg++;
    if (st.m[seg].type == A) kg_gemv_run<A, NS, false>(st, seg, kg_shared);
    else kg_gemv_run<B, NS, false>(st, seg, kg_shared);
}

template <int NS> static void (*kg_gemv_mix(const KgStage *st))(KgStage) {
    auto only = [&](uint32_t a, uint32_t b) {
        for (uint32_t i = 0; i < st->n_seg; i++)
            if (st->m[i].type != a && st->m[i].type != b) return false;
        return true;
    };
    if (only(KG_Q4_K, KG_Q6_K)) return kg_gemv_two<KG_Q4_K, KG_Q6_K, NS>;
    if (only(KG_Q5_K, KG_Q6_K)) return kg_gemv_two<KG_Q5_K, KG_Q6_K, NS>;
    if (only(KG_Q5_0, KG_Q8_0)) return kg_gemv_two<KG_Q5_0, KG_Q8_0, NS>;
    return kg_gemv_mixed<NS>;
}

// ns: streams a warp, 1 or 4; no pairs.
KGC_API cudaError_t kgc_gemv_mixed(const KgStage *st, uint32_t ns, uint32_t threads, int pdl, cudaStream_t stream) {
    if ((ns != 1 && ns != 4) || st->activation || !kg_gemv_check(st, ns, threads)) return cudaErrorInvalidValue;
    size_t quant = kg_gemv_smem(st->n, st->norm_w != nullptr, true), plain = kg_gemv_smem(st->n, st->norm_w != nullptr, false);
    size_t smem = quant > plain ? quant : plain;
    dim3 grid(st->seg_block[st->n_seg]);
    return kg_launch(ns == 4 ? kg_gemv_mix<4>(st) : kg_gemv_mix<1>(st), grid, dim3(threads), smem, pdl, stream, *st);
}
