// Products of a prompt's slots with experts' matrices of code books.
#include "matmul/prefill/expert_gemm.cuh"

KGC_API cudaError_t kgc_expert_gemm_grid(const KgExpertGemm *p, int pdl, cudaStream_t stream) {
    if (!kg_expert_gemm_check(p)) return cudaErrorInvalidValue;
    switch (p->m[0].type) {
#define KG_CASE(T) \
    case T: return kg_expert_gemm_launch<T>(p, pdl, stream);
        KG_GRID_TYPES(KG_CASE)
#undef KG_CASE
    default: return cudaErrorInvalidValue;
    }
}
