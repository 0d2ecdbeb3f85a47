// The choice among a token's experts in one launch: the router's logits, and by the block that ends last who is chosen, with what weights.
//
// The logits are those of experts.cuh to the bit: a warp a row, whose lanes sum their units in ascending order. Weights of float types, which
// routers have; requested before the launch before has ended.
// Bytes moved: the router once, x once a block from L2. Reference: tests/gpu/operations/experts.rs.
#include "matmul/experts_step.cuh"
#include "rows/route.cuh"

namespace {
template <int T> struct KgRouterPlace {
    const KgExpertProducts &p;
    const float *words;
    uint32_t row;
    __device__ __forceinline__ const KgMat &mat(int) const { return p.m[0]; }
    __device__ __forceinline__ void at(uint32_t, uint32_t (&from)[1]) const { from[0] = row * kg_expert_units<T>(p); }
    __device__ __forceinline__ const float *input(uint32_t) const { return words; }
    __device__ __forceinline__ void end(uint32_t, const float (&y)[1]) const {
        if ((threadIdx.x & 31) == 0) p.y[0][row] = __fadd_rn(y[0], p.bias[0] ? p.bias[0][row] : 0.f);
    }
};

// ended: blocks that have left their logits; 0 before, and 0 afterwards.
template <int T>
__global__ void __launch_bounds__(KG_EXPERT_STEP_THREADS, 1)
    kg_router(const __grid_constant__ KgExpertProducts p, const __grid_constant__ KgRoute route, uint32_t *ended) {
    KG_DYNAMIC_SHARED(uint32_t, words);
    KG_SHARED(KgRouteRoom, room);
    KG_SHARED(uint32_t, before);
    const uint32_t row = blockIdx.x * KG_EXPERT_STEP_WARPS + threadIdx.x / 32;
    kg_launch_dependents();
    KgExpertTurns<T, 1, 8, KgRouterPlace<T>> turns({p, (const float *)words, row}, row < p.rows ? 1 : 0, kg_expert_units<T>(p), p.n);
    kg_wait();
    kg_expert_step_input<false>(p, 1, 0, words);
    turns.run();
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) before = atomicAdd(ended, 1u);
    __syncthreads();
    if (before + 1 != gridDim.x || threadIdx.x >= 32) return;
    __threadfence();
    kg_route_row(route, 0, room);
    if (threadIdx.x == 0) *ended = 0;
}
} // namespace

KGC_API cudaError_t kgc_router(const KgExpertProducts *p, const KgRoute *route, uint32_t *ended, int pdl, cudaStream_t stream) {
    bool ok = p->x && p->n_m == 1 && p->rows && p->n && p->n_slots == 1 && p->y[0] && !p->ids && ended;
    ok = ok && p->x_stride >= p->n && p->x_stride % 4 == 0 && (uintptr_t)p->x % 16 == 0 && !p->weights && !p->activation;
    ok = ok && kg_route_check(route) && route->n_rows == 1 && route->n == p->rows && route->logits == p->y[0];
    if (!ok) return cudaErrorInvalidValue;
    return kg_by_type(p->m[0].type, [&](auto typed) -> cudaError_t {
        constexpr int T = decltype(typed)::type;
        if constexpr (kg_is_quant(T) || T == KG_F16_TILED) {
            return cudaErrorInvalidValue;
        } else {
            const dim3 grid((p->rows + KG_EXPERT_STEP_WARPS - 1) / KG_EXPERT_STEP_WARPS);
            return kg_launch(kg_router<T>, grid, dim3(KG_EXPERT_STEP_THREADS), kg_expert_step_smem(p, false), pdl, stream, *p, *route, ended);
        }
    });
}
