// The stages of the types Q2_K Q3_K Q4_K Q5_K Q6_K: see gemv.cuh.
#include "matmul/gemv.cuh"

// type: one of the above. ns: streams a warp, 1, 2 or 4. pdl: 1 with programmatic dependent launch.
KGC_API cudaError_t kgc_gemv_k256(const KgStage *st, uint32_t type, uint32_t ns, uint32_t threads, int deep, int pdl, cudaStream_t stream) {
    if (!kg_gemv_check(st, ns, threads)) return cudaErrorInvalidValue;
    switch (type) {
#define KG_CASE(T) \
    case T: return kg_gemv_launch<T>(st, ns, threads, deep, pdl, stream);
        KG_K256_TYPES(KG_CASE)
#undef KG_CASE
    default: return cudaErrorInvalidValue;
    }
}
