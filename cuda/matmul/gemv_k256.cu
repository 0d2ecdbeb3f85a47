// The stages of the types Q2_K Q3_K Q4_K Q5_K Q6_K: see gemv.cuh.
#include "matmul/gemv.cuh"

// type: one of the above. ns: streams a warp, 1, 2 or 4. pdl: 1 with programmatic dependent launch.
KGC_API cudaError_t kgc_stage_k256(const KgStage *st, uint32_t type, uint32_t ns, uint32_t threads, int deep, int pdl, cudaStream_t stream) {
    if (threads == 0 || threads > 512 || st->ks == 0 || threads % (32 * st->ks) != 0 || st->n == 0) return cudaErrorInvalidValue;
    if (st->n_seg < 1 || st->n_seg > 3 || (st->activation && ns < 2)) return cudaErrorInvalidValue;
    switch (type) {
    case KG_Q2_K: return kg_stage_launch<KG_Q2_K>(st, ns, threads, deep, pdl, stream);
    case KG_Q3_K: return kg_stage_launch<KG_Q3_K>(st, ns, threads, deep, pdl, stream);
    case KG_Q4_K: return kg_stage_launch<KG_Q4_K>(st, ns, threads, deep, pdl, stream);
    case KG_Q5_K: return kg_stage_launch<KG_Q5_K>(st, ns, threads, deep, pdl, stream);
    case KG_Q6_K: return kg_stage_launch<KG_Q6_K>(st, ns, threads, deep, pdl, stream);
    default: return cudaErrorInvalidValue;
    }
}
