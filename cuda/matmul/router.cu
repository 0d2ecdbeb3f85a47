// The choice among a token's experts in one launch: the norm of the stream, the router's logits, and who is chosen, with what weights.
//
// A cluster of 8 blocks. The norm is that of norm.cu to the bit, by every block for itself; block 0 stores what it makes of the stream, and the
// row. The logits are those of experts.cuh: a warp two rows, whose lanes sum their units in ascending order. Weights of float types, which
// routers have; requested before the launch before has ended. Each logit goes to block 0 too, which routes (route.cuh).
// Bytes moved: the router once; x and what is added to it once a block from L2. Reference: tests/gpu/operations/experts_step.rs.
#include "matmul/experts_step.cuh"
#include "rows/norm.cuh"
#include "rows/route.cuh"

namespace {
constexpr uint32_t THREADS = 256, BLOCKS = 8, ROWS = 2; // rows of a warp at once
constexpr uint32_t OF_BLOCK = THREADS / 32 * ROWS, OF_TURN = BLOCKS * OF_BLOCK;
#if __CUDA_ARCH__ >= 900
#define KG_ROUTER_CLUSTER __cluster_dims__(8, 1, 1)
#else
#define KG_ROUTER_CLUSTER
#endif

template <int T> struct KgRouterPlace {
    const KgExpertProducts &p;
    const float *words;
    float *logits;  // of all experts, which are wanted in the first block
    uint32_t first; // of the warp's in a turn's
    __device__ __forceinline__ const KgMat &mat(int) const { return p.m[0]; }
    __device__ __forceinline__ void at(uint32_t turn, uint32_t (&from)[ROWS]) const {
#pragma unroll
        for (uint32_t s = 0; s < ROWS; s++) from[s] = min(turn * OF_TURN + first + s, p.rows - 1) * kg_expert_units<T>(p);
    }
    __device__ __forceinline__ const float *input(uint32_t) const { return words; }
    __device__ __forceinline__ void end(uint32_t turn, float y) const {
        const uint32_t s = (threadIdx.x & 31) / (32 / ROWS), row = turn * OF_TURN + first + s;
        if (threadIdx.x % (32 / ROWS) || row >= p.rows) return;
        y = __fadd_rn(y, p.bias[0] ? p.bias[0][row] : 0.f);
        p.y[0][row] = y;
        kg_cluster_write(logits + row, 0, y);
    }
};

// x: where the stream is left that the norm has added up; null: p.x is normed already.
template <int T>
__global__ void KG_ROUTER_CLUSTER __launch_bounds__(THREADS)
    kg_router(const __grid_constant__ KgExpertProducts p, const __grid_constant__ KgRoute route, const __grid_constant__ KgNorm norm, float *x) {
    KG_DYNAMIC_SHARED(uint32_t, words);
    KG_SHARED(KgRouteRoom, room);
    KG_SHARED(float[4][8], red);
    const uint32_t rank = kg_cluster_rank(), first = rank * OF_BLOCK + threadIdx.x / 32 * ROWS;
    kg_launch_dependents();
    kg_cluster_arrive();
    const uint32_t n_turns = first < p.rows ? (p.rows - first - 1) / OF_TURN + 1 : 0;
    KgExpertTurns<T, ROWS, 8, 1, KgRouterPlace<T>> turns({p, (const float *)words, room.logits, first}, n_turns, kg_expert_units<T>(p), p.n);
    kg_wait();
    if (x) {
        const uint32_t n4 = (p.n + 31) / 32 * 8;
        kg_norm_row<4>(norm, 0, rank == 0 ? x : nullptr, red, true, [&](uint32_t i, const KgFloats<4> &o) {
            const float4 v = make_float4(o.v[0], o.v[1], o.v[2], o.v[3]);
            kg_stage_lay<false>(v, i / 4, n4, (float4 *)words, words);
            if (rank == 0) *(float4 *)(norm.row + i) = v;
        });
        for (uint32_t i = p.n / 4 + threadIdx.x; i < n4; i += THREADS)
            kg_stage_lay<false>(make_float4(0.f, 0.f, 0.f, 0.f), i, n4, (float4 *)words, words);
        __syncthreads();
    } else {
        kg_expert_step_input<false>(p, 1, 0, words);
    }
    kg_cluster_wait(); // all blocks have begun
    turns.run();
    kg_cluster_sync();
    if (rank == 0 && threadIdx.x < 32) kg_route_row(route, 0, room);
}
} // namespace

// norm: of the row that p.x is then; or null, and x too.
KGC_API cudaError_t kgc_router(const KgExpertProducts *p, const KgRoute *route, const KgNorm *norm, float *x, int pdl, cudaStream_t stream) {
    bool ok = p->x && p->n_m == 1 && p->rows && p->n && p->n_slots == 1 && p->y[0] && !p->ids && p->rows <= KG_MOST_EXPERTS && !norm == !x;
    ok = ok && p->x_stride >= p->n && p->x_stride % 4 == 0 && (uintptr_t)p->x % 16 == 0 && !p->weights && !p->activation;
    ok = ok && kg_route_check(route) && route->n_rows == 1 && route->n == p->rows && route->logits == p->y[0];
    if (norm) {
        uintptr_t all = (uintptr_t)norm->x | (uintptr_t)norm->w | (uintptr_t)norm->bias | (uintptr_t)x;
        for (int d = 0; d < 2; d++) all |= (uintptr_t)norm->delta[d] | (uintptr_t)norm->post_w[d];
        ok = ok && norm->x && x != norm->x && norm->row == p->x && norm->n_rows == 1 && norm->dim == p->n && p->n % 4 == 0 && all % 16 == 0;
        ok = ok && p->n <= KG_NORM_KEPT && norm->kind <= KG_NORM_LAYER && norm->delta[0] && !norm->out && !norm->out_lo;
        ok = ok && (norm->delta[1] || !norm->post_w[1]) && norm->scale > 0.f;
    }
    if (!ok) return cudaErrorInvalidValue;
    return kg_by_type(p->m[0].type, [&](auto typed) -> cudaError_t {
        constexpr int T = decltype(typed)::type;
        if constexpr (kg_is_quant(T) || T == KG_F16_TILED) {
            return cudaErrorInvalidValue;
        } else {
            KG_NEXT_CLUSTER(BLOCKS);
            const size_t bytes = kg_expert_step_smem(p, false);
            return kg_launch(kg_router<T>, dim3(BLOCKS), dim3(THREADS), bytes, pdl, stream, *p, *route, norm ? *norm : KgNorm(), x);
        }
    });
}
