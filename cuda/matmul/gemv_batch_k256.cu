// The stages of several sequences, of the types Q2_K Q3_K Q4_K Q5_K Q6_K: see gemv.cuh.
#include "matmul/gemv.cuh"

// type: one of the above. nb: sequences a block, 2, 4 or 8, as many as shared memory takes. threads: as many as the token alone has.
KGC_API cudaError_t kgc_batch_k256(const KgStage *st, uint32_t type, uint32_t nb, uint32_t threads, int pdl, cudaStream_t stream) {
    if (!kg_batch_check(st, threads)) return cudaErrorInvalidValue;
    switch (type) {
    case KG_Q2_K: return kg_batch_launch<KG_Q2_K>(st, nb, threads, pdl, stream);
    case KG_Q3_K: return kg_batch_launch<KG_Q3_K>(st, nb, threads, pdl, stream);
    case KG_Q4_K: return kg_batch_launch<KG_Q4_K>(st, nb, threads, pdl, stream);
    case KG_Q5_K: return kg_batch_launch<KG_Q5_K>(st, nb, threads, pdl, stream);
    case KG_Q6_K: return kg_batch_launch<KG_Q6_K>(st, nb, threads, pdl, stream);
    default: return cudaErrorInvalidValue;
    }
}
