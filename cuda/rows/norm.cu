// Residual and norm of rows, of a step, of a batch and of a prompt, a block of 256 threads each.
//
//   x += scale * (rms_norm(delta_i) * post_w_i)   i = 0, then 1, where given (post_w null: x += scale * delta_i)
//   x *= sum_scale                                where that is not 0, as of h h_scale, in front of the bias
//   KG_NORM_RMS    h = rms_norm(x) * w            rms_norm(v) = v / sqrt(mean(v^2) + eps)
//   KG_NORM_LAYER  h = (x - m) / sqrt(mean((x - m)^2) + eps) * w, m = mean(x)
//   KG_NORM_NONE   h = x
//   out = f16(h + bias), row = h + bias           w and bias where given
// Sums are f32 in an order of dim alone. f16 results are clamped to +-65504. Bytes moved: x once (twice, and once back, with
// delta), each delta once (twice with a post norm), out and row once. Reference: tests/gpu/operations/prefill.rs.
#include "rows/norm.cuh"

namespace {
// A prompt's one delta and RMS norm, to f16. V: elements a load. The first KEEP loads of a thread stay in registers for the second pass.
template <int V> __global__ void __launch_bounds__(256) kg_norm_plain(const __grid_constant__ KgNorm p) {
    constexpr uint32_t KEEP = 4, STEP = 256 * V;
    using F = KgFloats<V>;
    KG_SHARED(float[2][8], red);
    kg_begin();
    float *x = p.x + (size_t)blockIdx.x * p.dim;
    const float *delta = p.delta[0] ? p.delta[0] + (size_t)blockIdx.x * p.dim : nullptr, *post_w = p.post_w[0];
    float r = 1.f;
    if (delta && post_w) {
        float ss = 0.f;
        for (uint32_t i = threadIdx.x * V; i < p.dim; i += STEP) {
            const F d = *(const F *)(delta + i);
#pragma unroll
            for (int j = 0; j < V; j++) ss += d.v[j] * d.v[j];
        }
        r = 1.f / sqrtf(kg_block_sum256(ss, red[0]) / (float)p.dim + p.eps);
    }
    F kept[KEEP];
    float ss = 0.f;
    auto first = [&](uint32_t i) {
        F v = *(const F *)(x + i);
        if (delta) {
            const F d = *(const F *)(delta + i);
#pragma unroll
            for (int j = 0; j < V; j++) v.v[j] += post_w ? d.v[j] * r * post_w[i + j] : d.v[j];
            *(F *)(x + i) = v;
        }
#pragma unroll
        for (int j = 0; j < V; j++) ss += v.v[j] * v.v[j];
        return v;
    };
#pragma unroll
    for (uint32_t n = 0; n < KEEP; n++)
        if (n * STEP + threadIdx.x * V < p.dim) kept[n] = first(n * STEP + threadIdx.x * V);
    for (uint32_t i = KEEP * STEP + threadIdx.x * V; i < p.dim; i += STEP) first(i);
    if (!p.out) return;
    r = 1.f / sqrtf(kg_block_sum256(ss, red[1]) / (float)p.dim + p.eps);

    __half *out = (__half *)p.out + (size_t)blockIdx.x * p.out_stride;
    __half *lo = p.out_lo ? (__half *)p.out_lo + (size_t)blockIdx.x * p.out_stride : nullptr;
    auto second = [&](uint32_t i, const F &v) {
        const F w = *(const F *)(p.w + i);
        F o;
        KgHalves<V> h, l;
#pragma unroll
        for (int j = 0; j < V; j++) {
            o.v[j] = v.v[j] * r * w.v[j];
            h.v[j] = __float2half_rn(kg_clamp16(o.v[j]));
            l.v[j] = __float2half_rn(kg_clamp16(o.v[j] - __half2float(h.v[j])));
        }
        *(KgHalves<V> *)(out + i) = h;
        if (lo) *(KgHalves<V> *)(lo + i) = l;
        if (p.row) *(F *)(p.row + (size_t)blockIdx.x * p.dim + i) = o;
    };
#pragma unroll
    for (uint32_t n = 0; n < KEEP; n++)
        if (n * STEP + threadIdx.x * V < p.dim) second(n * STEP + threadIdx.x * V, kept[n]);
    for (uint32_t i = KEEP * STEP + threadIdx.x * V; i < p.dim; i += STEP) second(i, *(const F *)(x + i));
    for (uint32_t i = p.dim + threadIdx.x; i < p.out_stride; i += 256) {
        out[i] = __float2half_rn(0.f);
        if (lo) lo[i] = __float2half_rn(0.f);
    }
}

// All of it; row may be x.
template <int V> __global__ void __launch_bounds__(256) kg_norm_any(const __grid_constant__ KgNorm p) {
    KG_SHARED(float[4][8], red);
    kg_begin();
    const uint32_t heads = p.heads ? p.heads : 1;
    const size_t at = (size_t)(blockIdx.x / heads) * p.x_stride + blockIdx.x % heads * p.dim;
    __half *out = p.out ? (__half *)p.out + (size_t)blockIdx.x * p.out_stride : nullptr;
    __half *lo = p.out_lo ? (__half *)p.out_lo + (size_t)blockIdx.x * p.out_stride : nullptr;
    kg_norm_row<V>(p, at, p.x + at, red, p.out || p.row, [&](uint32_t i, const KgFloats<V> &o) {
        KgHalves<V> h, l;
#pragma unroll
        for (int j = 0; j < V; j++) {
            h.v[j] = __float2half_rn(kg_clamp16(o.v[j]));
            l.v[j] = __float2half_rn(kg_clamp16(o.v[j] - __half2float(h.v[j])));
        }
        if (p.row) *(KgFloats<V> *)(p.row + at + i) = o;
        if (out) *(KgHalves<V> *)(out + i) = h;
        if (lo) *(KgHalves<V> *)(lo + i) = l;
    });
    if (!out) return;
    for (uint32_t i = p.dim + threadIdx.x; i < p.out_stride; i += 256) {
        out[i] = __float2half_rn(0.f);
        if (lo) lo[i] = __float2half_rn(0.f);
    }
}

template <int V> cudaError_t run_norm(const KgNorm *p, bool plain, int pdl, cudaStream_t stream) {
    return kg_launch(plain ? kg_norm_plain<V> : kg_norm_any<V>, dim3(p->n_rows * (p->heads ? p->heads : 1)), dim3(256), 0, pdl, stream, *p);
}
} // namespace

// Rows whose dim is a multiple of 4 have to be aligned to 16 bytes where they are normed in any other way than a prompt's plain ones,
// so that the order of the sums does not depend on where a row lies.
KGC_API cudaError_t kgc_norm(const KgNorm *p, int pdl, cudaStream_t stream) {
    bool ok = p->x && p->n_rows && p->dim && p->x_stride >= p->dim && p->kind <= KG_NORM_LAYER && (p->delta[0] || !p->delta[1]);
    ok = ok && (p->delta[0] || !p->post_w[0]) && (p->delta[1] || !p->post_w[1]) && (!p->out || p->out_stride >= p->dim) && (p->out || !p->out_lo);
    ok = ok && (p->heads <= 1 || (!p->out && !p->delta[0] && p->x_stride >= (uint64_t)p->heads * p->dim));
    ok = ok && (p->sum_scale == 0.f || p->delta[0]);
    ok = ok && (!p->w_stride || (p->w && p->heads > 1 && p->w_stride >= p->dim));
    if (!ok || !(p->out || p->row || p->delta[0]) || (p->delta[0] && !(p->scale > 0.f))) return cudaErrorInvalidValue;
    bool plain = !p->delta[1] && (!p->delta[0] || p->scale == 1.f) && p->x_stride == p->dim && p->heads <= 1 &&
            p->sum_scale == 0.f && p->h_scale == 0.f;
    plain = plain && (p->out ? p->kind == KG_NORM_RMS && p->w && !p->bias : !p->row);
    uintptr_t all = (uintptr_t)p->x | (uintptr_t)p->w | (uintptr_t)p->bias | (uintptr_t)p->row;
    for (int d = 0; d < 2; d++) all |= (uintptr_t)p->delta[d] | (uintptr_t)p->post_w[d];
    all |= (uintptr_t)p->out | (uintptr_t)p->out_lo | (p->w_stride % 4 ? 1 : 0);
    const bool whole = p->dim % 4 == 0, aligned = p->x_stride % 4 == 0 && (!p->out || p->out_stride % 4 == 0) && all % 16 == 0;
    if (!plain && whole && !aligned) return cudaErrorInvalidValue;
    return whole && aligned ? run_norm<4>(p, plain, pdl, stream) : run_norm<1>(p, plain, pdl, stream);
}
