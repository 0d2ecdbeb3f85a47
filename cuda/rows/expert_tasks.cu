// Slots by expert, so that an expert's weights are read once for several rows: a counting sort, and tasks of at most `at_once` slots.
//
//   order: [n_slots], slots of the first expert, then of the second, ..; among those of one expert in no certain order
//   tasks: [n_tasks] {the first in order, expert * 256 + how many}; those beyond the last have none
// n_tasks is at least min(n_slots, n_slots / at_once + n_experts). No bit of any slot depends on the order. Geometry: one block.
// Bytes moved: the ids twice, order once. Reference: tests/gpu/operations/experts.rs.
#include "device/vectors.cuh"

namespace {
constexpr uint32_t THREADS = KG_MOST_EXPERTS;

__global__ void __launch_bounds__(THREADS) kg_expert_tasks(const uint32_t *ids, uint32_t *order, uint2 *tasks, uint32_t n_slots, uint32_t n_experts,
                                                           uint32_t at_once, uint32_t n_tasks) {
    KG_SHARED(uint32_t[KG_MOST_EXPERTS], at); // how many slots; where the next goes
    KG_SHARED(uint32_t[32], slots);
    KG_SHARED(uint32_t[32], parts);
    const uint32_t e = threadIdx.x, lane = e % 32, warp = e / 32;
    at[e] = 0;
    kg_begin();
    __syncthreads();
    for (uint32_t i = e; i < n_slots; i += THREADS) atomicAdd(&at[min(ids[i], n_experts - 1)], 1u);
    __syncthreads();
    // Sums over all experts before this one: of a warp's, then of the warps'.
    const uint32_t mine = at[e], cut = (mine + at_once - 1) / at_once;
    uint32_t slot = mine, task = cut;
#pragma unroll
    for (uint32_t o = 1; o < 32; o <<= 1) {
        const uint32_t s = __shfl_up_sync(0xffffffffu, slot, o), t = __shfl_up_sync(0xffffffffu, task, o);
        if (lane >= o) slot += s, task += t;
    }
    if (lane == 31) slots[warp] = slot, parts[warp] = task;
    __syncthreads();
    uint32_t last = 0;
    for (uint32_t w = 0; w < 32; w++) {
        if (w < warp) slot += slots[w], task += parts[w];
        last += parts[w];
    }
    const uint32_t first = slot - mine;
    for (uint32_t i = 0; i < cut; i++)
        if (task - cut + i < n_tasks) tasks[task - cut + i] = make_uint2(first + i * at_once, e * 256 + min(at_once, mine - i * at_once));
    for (uint32_t i = last + e; i < n_tasks; i += THREADS) tasks[i] = make_uint2(0, 0);
    at[e] = first;
    __syncthreads();
    for (uint32_t i = e; i < n_slots; i += THREADS) order[atomicAdd(&at[min(ids[i], n_experts - 1)], 1u)] = i;
}
} // namespace

KGC_API cudaError_t kgc_expert_tasks(const uint32_t *ids, uint32_t *order, uint2 *tasks, uint32_t n_slots, uint32_t n_experts, uint32_t at_once,
                                     uint32_t n_tasks, int pdl, cudaStream_t stream) {
    bool ok = ids && order && tasks && n_slots && n_experts && n_experts <= KG_MOST_EXPERTS && at_once && at_once <= KG_EXPERT_SLOTS;
    if (!ok || n_tasks < min(n_slots, n_slots / at_once + n_experts)) return cudaErrorInvalidValue;
    return kg_launch(kg_expert_tasks, dim3(1), dim3(THREADS), 0, pdl, stream, ids, order, tasks, n_slots, n_experts, at_once, n_tasks);
}
