// A gated delta rule over the tokens of sequences (model/recurrent.rs), of each value head with its key head:
//
//   q, k = q / (sqrt(sum(q^2) + eps) sqrt(k_dim)), k / sqrt(sum(k^2) + eps)
//   S = decay * S;  S += k (beta * (v - S^T k))^T;  o = S^T q
//   out = rms_norm(o; norm) * silu(z)
//
// S: [k_dim, v_dim] f32 for each value head, where the sequence keeps it. Tokens go through it one after the other, in prompts as in steps, so
// that no bit depends on how a prompt is cut. Four lanes share a column of S, which they keep in registers: lane l has the rows
// 16 a + 4 l + b, and a sum over rows is that of four sums over a, ascending, those of b = 0, 1, 2, 3 added as (0 + 1) + (2 + 3), and
// then those of the lanes, of neighbours first.
// Geometry: a step has a block for each head of a sequence, a warp for each 8 columns. A prompt has blocks of 32 columns, which go
// through 16 tokens between two barriers, and a launch behind them for what follows o, a warp for each head of a row.
// Bytes moved: S twice; y once for each head, z and out once. Reference: tests/gpu/operations/recurrent.rs.
#include "device/activation.cuh"
#include "rows/spans.cuh"
#include "rows/state_columns.cuh"

namespace {
constexpr uint32_t DIM = KG_DELTA_HEAD, PROMPT_TOKENS = 16, PROMPT_COLUMNS = 32;

__device__ __forceinline__ uint32_t kg_key_head(const KgDelta &p, uint32_t head) {
    return p.tiled ? head % p.k_heads : head / (p.v_heads / p.k_heads);
}

// A head's norm and gate, by a warp.
__device__ __forceinline__ void kg_head_out(const KgDelta &p, const float *o, uint32_t row, uint32_t head) {
    const uint32_t lane = threadIdx.x % 32;
    float sum = 0.f;
    for (uint32_t i = lane; i < p.v_dim; i += 32) sum = __fmaf_rn(o[i], o[i], sum);
    const float scale = 1.f / sqrtf(kg_warp_sum(sum) / (float)p.v_dim + p.eps);
    for (uint32_t i = lane; i < p.v_dim; i += 32) {
        const uint32_t at = head * p.v_dim + i;
        const float z = p.z[(size_t)row * p.z_stride + at], normed = __fmul_rn(__fmul_rn(o[i], scale), p.norm[i]);
        kg_put_row(p.row, p.out, p.out_lo, (size_t)row * p.out_stride + at, kg_gated(KG_ACTIVATION_SILU, z, normed));
    }
}

// A head of queries or keys to shared memory, normalized by a warp; zeros stand behind it.
__device__ __forceinline__ void kg_bring_head(const KgDelta &p, const float *from, float *to, float divisor) {
    const uint32_t lane = threadIdx.x % 32;
    float x[DIM / 32], sum = 0.f;
#pragma unroll
    for (uint32_t i = 0; i < DIM / 32; i++) {
        x[i] = lane + 32 * i < p.k_dim ? from[lane + 32 * i] : 0.f;
        sum = __fmaf_rn(x[i], x[i], sum);
    }
    const float scale = 1.f / (sqrtf(kg_warp_sum(sum) + p.eps) * divisor);
#pragma unroll
    for (uint32_t i = 0; i < DIM / 32; i++) to[lane + 32 * i] = __fmul_rn(x[i], scale);
}

// One token through a column; what is read of it.
__device__ __forceinline__ float kg_delta_token(float4 (&s)[DIM / 16], const float *q, const float *k, float v, float beta, float decay,
                                               uint32_t lane) {
    kg_scale_column(s, decay);
    const float d = __fmul_rn(beta, __fsub_rn(v, kg_column_sum(s, k, lane)));
    kg_add_column(s, k, d, lane);
    return kg_column_sum(s, q, lane);
}

// TOKENS between two barriers; a step has one.
template <uint32_t TOKENS, uint32_t COLUMNS> __global__ void __launch_bounds__(4 * COLUMNS) kg_delta(const __grid_constant__ KgDelta p) {
    KG_SHARED(float[TOKENS * DIM], q);
    KG_SHARED(float[TOKENS * DIM], k);
    KG_SHARED(float[COLUMNS], o);
    constexpr bool step = TOKENS == 1;
    const uint32_t head = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 4, own = threadIdx.x / 4;
    const uint32_t column = blockIdx.z * COLUMNS + own, keys = p.k_heads * p.k_dim, key_at = kg_key_head(p, head) * p.k_dim;
    const KgOwner owner = kg_owner(p.of, blockIdx.y);
    const size_t s_at = (size_t)head * p.k_dim * p.v_dim + column;
    const bool is_there = column < p.v_dim;
    float4 s[DIM / 16];
    kg_each_row(s, lane, [&](uint32_t row, float &x) {
        x = owner.kept && is_there && row < p.k_dim ? owner.kept[s_at + (size_t)row * p.v_dim] : 0.f;
    });
    const float divisor = sqrtf((float)p.k_dim);
    for (uint32_t first = 0; first < owner.n_rows; first += TOKENS) {
        const uint32_t n = min(TOKENS, owner.n_rows - first);
        for (uint32_t i = warp; i < 2 * n; i += COLUMNS / 8) {
            const float *from = p.y + (size_t)(owner.row0 + first + i / 2) * p.y_stride + key_at;
            if (i % 2 == 0) kg_bring_head(p, from, q + i / 2 * DIM, divisor);
            else kg_bring_head(p, from + keys, k + i / 2 * DIM, 1.f);
        }
        __syncthreads();
        for (uint32_t t = 0; t < n; t++) {
            const uint32_t row = owner.row0 + first + t;
            const float v = is_there ? p.y[(size_t)row * p.y_stride + 2 * keys + head * p.v_dim + column] : 0.f;
            const size_t gate = (size_t)row * p.gates_stride + head;
            const float made = kg_delta_token(s, q + t * DIM, k + t * DIM, v, p.betas[gate], p.decays[gate], lane);
            if (lane == 0 && is_there) {
                p.o[((size_t)row * p.v_heads + head) * p.v_dim + column] = made;
                if (step) o[own] = made;
            }
        }
        __syncthreads();
    }
    kg_each_row(s, lane, [&](uint32_t row, float &x) { if (is_there && row < p.k_dim) owner.keeps[s_at + (size_t)row * p.v_dim] = x; });
    if (step && warp == 0) kg_head_out(p, o, owner.row0, head);
}

__global__ void __launch_bounds__(128) kg_delta_out(const __grid_constant__ KgDelta p) {
    const uint32_t head = blockIdx.x * 4 + threadIdx.x / 32, row = blockIdx.y;
    if (head < p.v_heads) kg_head_out(p, p.o + ((size_t)row * p.v_heads + head) * p.v_dim, row, head);
}
} // namespace

KGC_API cudaError_t kgc_delta(const KgDelta *p, cudaStream_t stream) {
    bool ok = kg_are_owned(p->of) && p->y && p->betas && p->decays && p->z && p->norm && p->o && (p->row || p->out) && (p->out || !p->out_lo);
    ok = ok && p->k_heads && p->v_heads && p->v_heads % p->k_heads == 0 && p->k_dim && p->v_dim && p->k_dim <= DIM && p->v_dim <= DIM;
    ok = ok && p->y_stride >= 2 * p->k_heads * p->k_dim + p->v_heads * p->v_dim && p->gates_stride >= p->v_heads;
    ok = ok && p->z_stride >= p->v_heads * p->v_dim && p->out_stride >= p->v_heads * p->v_dim && p->of.n <= 65535;
    if (!ok) return cudaErrorInvalidValue;
    if (p->of.state) return kg_launch(kg_delta<1, DIM>, dim3(p->v_heads, p->of.n), dim3(4 * DIM), 0, 0, stream, *p);
    const dim3 grid(p->v_heads, p->of.n, (p->v_dim + PROMPT_COLUMNS - 1) / PROMPT_COLUMNS);
    const cudaError_t e = kg_launch(kg_delta<PROMPT_TOKENS, PROMPT_COLUMNS>, grid, dim3(4 * PROMPT_COLUMNS), 0, 0, stream, *p);
    if (e != cudaSuccess) return e;
    return kg_launch(kg_delta_out, dim3((p->v_heads + 3) / 4, p->of.n_rows), dim3(128), 0, 0, stream, *p);
}
