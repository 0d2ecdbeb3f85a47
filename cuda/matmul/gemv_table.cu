// The stages of the types IQ4_NL IQ4_XS MXFP4 NVFP4: see gemv.cuh.
#include "matmul/gemv.cuh"

// type: one of the above. ns: streams a warp, 1, 2 or 4. pdl: 1 with programmatic dependent launch.
KGC_API cudaError_t kgc_gemv_table(const KgStage *st, uint32_t type, uint32_t ns, uint32_t threads, int deep, int pdl, cudaStream_t stream) {
    if (!kg_gemv_check(st, ns, threads)) return cudaErrorInvalidValue;
    switch (type) {
#define KG_CASE(T) \
    case T: return kg_gemv_launch<T>(st, ns, threads, deep, pdl, stream);
        KG_TABLE_TYPES(KG_CASE)
#undef KG_CASE
    default: return cudaErrorInvalidValue;
    }
}
