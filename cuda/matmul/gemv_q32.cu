// The stages of the types Q4_0 Q4_1 Q5_0 Q5_1 Q8_0: see gemv.cuh.
#include "matmul/gemv.cuh"

// type: one of the above. ns: streams a warp, 1, 2 or 4. pdl: 1 with programmatic dependent launch.
KGC_API cudaError_t kgc_stage_q32(const KgStage *st, uint32_t type, uint32_t ns, uint32_t threads, int deep, int pdl, cudaStream_t stream) {
    if (threads == 0 || threads > 512 || st->ks == 0 || threads % (32 * st->ks) != 0 || st->n == 0) return cudaErrorInvalidValue;
    if (st->n_seg < 1 || st->n_seg > 3 || (st->activation && ns < 2)) return cudaErrorInvalidValue;
    switch (type) {
    case KG_Q4_0: return kg_stage_launch<KG_Q4_0>(st, ns, threads, deep, pdl, stream);
    case KG_Q4_1: return kg_stage_launch<KG_Q4_1>(st, ns, threads, deep, pdl, stream);
    case KG_Q5_0: return kg_stage_launch<KG_Q5_0>(st, ns, threads, deep, pdl, stream);
    case KG_Q5_1: return kg_stage_launch<KG_Q5_1>(st, ns, threads, deep, pdl, stream);
    case KG_Q8_0: return kg_stage_launch<KG_Q8_0>(st, ns, threads, deep, pdl, stream);
    default: return cudaErrorInvalidValue;
    }
}
