// A Mamba2 over the tokens of sequences (model/recurrent.rs), of each head with the B and C of its group:
//
//   S = decay * S + B (step * x)^T;  o = S^T C + d * x
//
// S: [d_state, head_dim] f32 for each head, where the sequence keeps it. Tokens go through it one after the other, in prompts as in steps, so
// that no bit depends on how a prompt is cut. Four lanes share a column of S, which they keep in registers; rows and sums are those of
// delta.cu, and d * x is added last.
// Geometry: blocks of 32 columns of a head of a sequence, which go through 8 or 16 tokens between two barriers.
// Bytes moved: S twice; y once for each head, o once. Reference: tests/gpu/operations/recurrent.rs.
#include "rows/spans.cuh"
#include "rows/state_columns.cuh"

namespace {
constexpr uint32_t COLUMNS = 32;

template <uint32_t DIM> __global__ void __launch_bounds__(4 * COLUMNS) kg_scan(const __grid_constant__ KgScan p) {
    constexpr uint32_t TOKENS = 2048 / DIM;
    KG_SHARED(float[TOKENS * DIM], b);
    KG_SHARED(float[TOKENS * DIM], c);
    const uint32_t head = blockIdx.x, lane = threadIdx.x % 4, column = blockIdx.z * COLUMNS + threadIdx.x / 4;
    const uint32_t width = p.heads * p.head_dim, group = head / (p.heads / p.groups) * p.d_state;
    const KgOwner owner = kg_owner(p.of, blockIdx.y);
    const size_t s_at = (size_t)head * p.d_state * p.head_dim + column;
    const bool is_there = column < p.head_dim;
    float4 s[DIM / 16];
    kg_each_row(s, lane, [&](uint32_t row, float &x) {
        x = owner.kept && is_there && row < p.d_state ? owner.kept[s_at + (size_t)row * p.head_dim] : 0.f;
    });
    const float d = p.d[head];
    for (uint32_t first = 0; first < owner.n_rows; first += TOKENS) {
        const uint32_t n = min(TOKENS, owner.n_rows - first);
        for (uint32_t i = threadIdx.x; i < n * DIM; i += 4 * COLUMNS) {
            const float *from = p.y + (size_t)(owner.row0 + first + i / DIM) * p.y_stride + width + group + i % DIM;
            b[i] = i % DIM < p.d_state ? from[0] : 0.f;
            c[i] = i % DIM < p.d_state ? from[p.groups * p.d_state] : 0.f;
        }
        __syncthreads();
        for (uint32_t t = 0; t < n; t++) {
            const uint32_t row = owner.row0 + first + t;
            const float x = is_there ? p.y[(size_t)row * p.y_stride + head * p.head_dim + column] : 0.f;
            const size_t gate = (size_t)row * p.gates_stride + head;
            const float taken = __fmul_rn(p.steps[gate], x);
            kg_scale_column(s, p.decays[gate]);
            kg_add_column(s, b + t * DIM, taken, lane);
            const float made = __fmaf_rn(d, x, kg_column_sum(s, c + t * DIM, lane));
            if (lane == 0 && is_there) p.o[(size_t)row * width + head * p.head_dim + column] = made;
        }
        __syncthreads();
    }
    kg_each_row(s, lane, [&](uint32_t row, float &x) { if (is_there && row < p.d_state) owner.keeps[s_at + (size_t)row * p.head_dim] = x; });
}
} // namespace

KGC_API cudaError_t kgc_scan(const KgScan *p, cudaStream_t stream) {
    bool ok = kg_are_owned(p->of) && p->y && p->steps && p->decays && p->d && p->o && p->heads && p->groups && p->heads % p->groups == 0;
    ok = ok && p->head_dim && p->d_state && p->d_state <= KG_SCAN_STATE && p->gates_stride >= p->heads && p->of.n <= 65535;
    if (!ok || p->y_stride < (uint64_t)p->heads * p->head_dim + 2 * (uint64_t)p->groups * p->d_state) return cudaErrorInvalidValue;
    const dim3 grid(p->heads, p->of.n, (p->head_dim + COLUMNS - 1) / COLUMNS);
    if (p->d_state <= 128) return kg_launch(kg_scan<128>, grid, dim3(4 * COLUMNS), 0, 0, stream, *p);
    return kg_launch(kg_scan<KG_SCAN_STATE>, grid, dim3(4 * COLUMNS), 0, 0, stream, *p);
}
