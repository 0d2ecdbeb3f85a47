// The stages of the types F32 F16 BF16: see gemv.cuh.
#include "matmul/gemv.cuh"

// type: one of the above. ns: streams a warp, 1, 2 or 4. pdl: 1 with programmatic dependent launch.
KGC_API cudaError_t kgc_stage_float(const KgStage *st, uint32_t type, uint32_t ns, uint32_t threads, int deep, int pdl, cudaStream_t stream) {
    if (threads == 0 || threads > 512 || st->ks == 0 || threads % (32 * st->ks) != 0 || st->n == 0) return cudaErrorInvalidValue;
    if (st->n_seg < 1 || st->n_seg > 3 || (st->activation && ns < 2)) return cudaErrorInvalidValue;
    switch (type) {
    case KG_F32: return kg_stage_launch<KG_F32>(st, ns, threads, deep, pdl, stream);
    case KG_F16: return kg_stage_launch<KG_F16>(st, ns, threads, deep, pdl, stream);
    case KG_BF16: return kg_stage_launch<KG_BF16>(st, ns, threads, deep, pdl, stream);
    default: return cudaErrorInvalidValue;
    }
}
