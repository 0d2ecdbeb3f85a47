// The stages of several sequences, of the types TQ1_0 TQ2_0 Q2_0 Q1_0: see gemv.cuh.
#include "matmul/gemv.cuh"

// type: one of the above. nb: sequences a block, 2, 4 or 8, as many as shared memory takes. threads: as many as the token alone has.
KGC_API cudaError_t kgc_gemv_batch_ternary(const KgStage *st, uint32_t type, uint32_t nb, uint32_t threads, int pdl, cudaStream_t stream) {
    if (!kg_gemv_batch_check(st, threads)) return cudaErrorInvalidValue;
    switch (type) {
#define KG_CASE(T) \
    case T: return kg_gemv_batch_launch<T>(st, nb, threads, pdl, stream);
        KG_TERNARY_TYPES(KG_CASE)
#undef KG_CASE
    default: return cudaErrorInvalidValue;
    }
}
