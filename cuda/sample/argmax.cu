// The greedy choice, and the state of the next step.
//
//   the largest logit, ties to the lowest id, NaN below everything; state: token = it, position += 1, produced += 1;
//   ring[produced % KG_RING] on the host receives the token, or ~0 where no logit is finite or one is +inf. Integers only, so
//   the order does not matter. Bytes moved: the logits once. Reference: src/sampler.
#include "device/common.cuh"

__global__ void __launch_bounds__(256) kg_argmax(KgState *state, uint32_t n, uint64_t *best, uint32_t *counter, volatile uint32_t *ring) {
    KG_SHARED(uint64_t[8], red);
    kg_launch_dependents();
    kg_wait();
    state += blockIdx.y, best += blockIdx.y, counter += blockIdx.y;
    const float *l = state->logits;
    uint64_t m = 0;
    auto take = [&](float v, uint32_t i) {
        const uint64_t k = (uint64_t)kg_order(v) << 32 | (0xffffffffu - i);
        m = k > m ? k : m;
    };
#pragma unroll 2
    for (uint32_t i = 4 * (blockIdx.x * blockDim.x + threadIdx.x); i < n; i += 4 * gridDim.x * blockDim.x) {
        if (i + 3 < n) {
            const float4 v = *(const float4 *)(l + i);
            take(v.x, i), take(v.y, i + 1), take(v.z, i + 2), take(v.w, i + 3);
        } else {
            for (uint32_t j = i; j < n; j++) take(l[j], j);
        }
    }
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) {
        uint64_t k = __shfl_xor_sync(0xffffffffu, m, o);
        m = k > m ? k : m;
    }
    if ((threadIdx.x & 31) == 0) red[threadIdx.x >> 5] = m;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < 8; i++) m = red[i] > m ? red[i] : m;
    atomicMax((unsigned long long *)best, (unsigned long long)m);
    __threadfence();
    if (atomicInc(counter, gridDim.x - 1) != gridDim.x - 1) return;
    __threadfence();
    m = atomicExch((unsigned long long *)best, 0ull);
    // Nothing to choose from: no logit is above -inf, or one is +inf.
    const uint32_t key = (uint32_t)(m >> 32);
    const bool none = key <= 0x007fffffu || key >= 0xff800000u;
    const uint32_t token = none ? 0xffffffffu : 0xffffffffu - (uint32_t)m;
    state->token = none ? 0 : (int32_t)token;
    state->position += 1;
    uint32_t at = state->produced;
    state->produced = at + 1;
    ring[at & (KG_RING - 1)] = token;
    __threadfence_system();
}

// state, best, counter: [n_seq], the last two zero between launches; a slot's logits begin at a multiple of 16 bytes. ring: KG_RING tokens of host memory the device can write.
KGC_API cudaError_t kgc_argmax(KgState *state, uint32_t n_seq, uint32_t n, uint64_t *best, uint32_t *counter, uint32_t *ring,
                               cudaStream_t stream) {
    if (n_seq == 0 || n == 0) return cudaErrorInvalidValue;
    // Of many sequences as many blocks as fit at once.
    return kg_launch(kg_argmax, dim3(n_seq >= 16 ? 16 : 64, n_seq), dim3(256), 0, 0, stream, state, n, best, counter, (volatile uint32_t *)ring);
}
