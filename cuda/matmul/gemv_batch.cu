// What a block of the stages of several sequences takes: see gemv.cuh.
#include "matmul/gemv.cuh"

// Most sequences that a block of a stage of `n` columns takes: 8, 4, 2, or 0 where two do not fit into shared memory.
KGC_API uint32_t kgc_gemv_batch_most(uint32_t n, int quant) {
    for (uint32_t nb = 8; nb >= 2; nb /= 2)
        if (kg_gemv_batch_smem(n, quant, nb) <= kg_shared_most()) return nb;
    return 0;
}
// Bytes of shared memory of such a block.
KGC_API uint64_t kgc_gemv_batch_shared(uint32_t n, int quant, uint32_t nb) { return kg_gemv_batch_smem(n, quant, nb); }
