// The kernels of q_batch_sm90.cuh of two tiles of sequences a block.
#include "matmul/q_batch_launch.cuh"

KGC_API cudaError_t kgc_q_batch_of2(const KgStage *st, uint32_t type, uint32_t rg, int pdl, cudaStream_t stream) {
    return kg_q_batch_launch<2>(st, type, rg, pdl, stream);
}
