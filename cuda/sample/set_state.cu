// The state of a step as the host sets it.
#include "device/common.cuh"

__global__ void kg_set_state(KgState *state, KgState value) { *state = value; }

KGC_API cudaError_t kgc_set_state(KgState *state, const KgState *value, cudaStream_t stream) {
    return kg_launch(kg_set_state, dim3(1), dim3(1), 0, 0, stream, state, *value);
}
