// A causal convolution by channel, and what stands around it in mixers with a state (model/recurrent.rs):
//
//   m = times * x;  y_t = activation(bias + sum over j < len of w_j m_(t - len + 1 + j));  out_t = gate_t * y_t
//   betas = sigmoid(.), decays = exp(a * softplus(. + dt)) of the row's gates, in their place; where decays follow from time steps
//   steps = softplus(. + dt), decays = exp(a * steps)
//
// In front of the sequence's first row stand the columns that it has kept, [len - 1, channels] f32, the oldest first; behind the last they
// are those of the last rows. Sums go over j in ascending order, in f32, and a row's are the same in steps and in prompts.
// Geometry: 128 threads, a channel each, or in a last block the gates; blockIdx.y a row. Of a prompt the columns are kept by a launch behind
// it, since other blocks read what is kept: a thread a channel, blockIdx.y a sequence.
// Bytes moved: len rows of x, w and the columns once. Reference: tests/gpu/operations/recurrent.rs.
#include "device/activation.cuh"
#include "rows/spans.cuh"

namespace {
constexpr uint32_t THREADS = 128;

// What the convolution reads at token t of the sequence, counted from its first row, t >= 1 - len.
__device__ __forceinline__ float kg_column(const KgConvolve &p, const KgOwner &o, int32_t t, uint32_t c) {
    if (t < 0) return o.kept ? o.kept[(size_t)(t + (int32_t)p.len - 1) * p.channels + c] : 0.f;
    const size_t at = (size_t)(o.row0 + (uint32_t)t) * p.x_stride + c;
    return p.times ? __fmul_rn(p.times[at], p.x[at]) : p.x[at];
}

// The last columns become those that the next token reads. What is read stands behind what has been written.
__device__ __forceinline__ void kg_keep_columns(const KgConvolve &p, const KgOwner &o, uint32_t c) {
    for (uint32_t i = 0; i + 1 < p.len; i++) o.keeps[(size_t)i * p.channels + c] = kg_column(p, o, (int32_t)(o.n_rows + i) - (int32_t)p.len + 1, c);
}

__device__ __forceinline__ void kg_gates(const KgConvolve &p, uint32_t row) {
    float *const betas = p.betas + (size_t)row * p.gates_stride, *const decays = p.decays + (size_t)row * p.gates_stride;
    for (uint32_t i = threadIdx.x; i < p.n_gates; i += THREADS) {
        const float x = __fadd_rn(p.by_steps ? betas[i] : decays[i], p.dt[i]);
        // e^-20 is less than half a unit in the last place of 20.
        const float step = x > 20.f ? x : log1pf(expf(x));
        betas[i] = p.by_steps ? step : 1.f / (1.f + expf(-betas[i]));
        decays[i] = expf(__fmul_rn(p.a[i], step));
    }
}

__global__ void __launch_bounds__(THREADS) kg_convolve(const __grid_constant__ KgConvolve p) {
    const uint32_t c = blockIdx.x * THREADS + threadIdx.x, row = blockIdx.y;
    if (p.betas && blockIdx.x + 1 == gridDim.x) return kg_gates(p, row);
    if (c >= p.channels) return;
    const KgOwner o = kg_owner_of(p.of, row);
    const int32_t first = (int32_t)(row - o.row0) - (int32_t)p.len + 1;
    float sum = p.bias ? p.bias[c] : 0.f;
    for (uint32_t j = 0; j < p.len; j++) sum = __fmaf_rn(p.w[(size_t)c * p.len + j], kg_column(p, o, first + (int32_t)j, c), sum);
    const float y = p.activation ? kg_activation_any(p.activation, sum) : sum;
    p.y[(size_t)row * p.y_stride + c] = y;
    const float gate = p.gate ? p.gate[(size_t)row * p.x_stride + c] : 1.f;
    kg_put_row(p.row, p.out, p.out_lo, (size_t)row * p.out_stride + c, __fmul_rn(gate, y));
    if (p.of.state) kg_keep_columns(p, o, c);
}

__global__ void __launch_bounds__(THREADS) kg_keep(const __grid_constant__ KgConvolve p) {
    const uint32_t c = blockIdx.x * THREADS + threadIdx.x;
    if (c < p.channels) kg_keep_columns(p, kg_owner(p.of, blockIdx.y), c);
}
} // namespace

KGC_API cudaError_t kgc_convolve(const KgConvolve *p, cudaStream_t stream) {
    bool ok = kg_are_owned(p->of) && p->x && p->w && p->y && p->channels && p->len >= 2 && p->activation <= KG_ACTIVATION_RELU2;
    ok = ok && p->x_stride >= p->channels && p->y_stride >= p->channels && (p->out || !p->out_lo);
    ok = ok && ((!p->row && !p->out) || p->out_stride >= p->channels);
    ok = ok && (!p->betas || (p->decays && p->a && p->dt && p->n_gates && p->gates_stride >= p->n_gates));
    if (!ok) return cudaErrorInvalidValue;
    const uint32_t blocks = (p->channels + THREADS - 1) / THREADS;
    const cudaError_t e = kg_launch(kg_convolve, dim3(blocks + (p->betas ? 1 : 0), p->of.n_rows), dim3(THREADS), 0, 0, stream, *p);
    if (e != cudaSuccess || p->of.state) return e;
    return kg_launch(kg_keep, dim3(blocks, p->of.n), dim3(THREADS), 0, 0, stream, *p);
}
