// Products of experts' matrices of these types: see experts.cuh.
#include "matmul/experts.cuh"

KGC_API cudaError_t kgc_expert_products_table(const KgExpertProducts *p, int pdl, cudaStream_t stream) {
    if (!kg_expert_check(p)) return cudaErrorInvalidValue;
    switch (p->m[0].type) {
#define KG_CASE(T) \
    case T: return kg_expert_launch<T>(p, pdl, stream);
        KG_TABLE_TYPES(KG_CASE)
#undef KG_CASE
    default: return cudaErrorInvalidValue;
    }
}
