// Residual and norm of a prompt's tokens, a block of 256 threads each.
//
//   x += rms_norm(delta) * post_w       where delta is given (post_w null: x += delta)
//   out = f16(rms_norm(x) * w)          rms_norm(v) = v / sqrt(mean(v^2) + eps), sums f32 in an order of dim alone
// f16 results are clamped to +-65504. Bytes moved: x once (twice, and once back, with delta), out once.
// Reference: tests/gpu/operations/prefill.rs.
#include "device/vectors.cuh"

namespace {
// V: elements a load. The first KEEP loads of a thread stay in registers for the second pass.
template <int V> __global__ void __launch_bounds__(256) kg_prefill_norm(const __grid_constant__ KgPrefillNorm p) {
    constexpr uint32_t KEEP = 4, STEP = 256 * V;
    using F = KgFloats<V>;
    KG_SHARED(float[2][8], red);
    kg_begin();
    float *x = p.x + (size_t)blockIdx.x * p.dim;
    const float *delta = p.delta ? p.delta + (size_t)blockIdx.x * p.dim : nullptr;
    float r = 1.f;
    if (delta && p.post_w) {
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
            for (int j = 0; j < V; j++) v.v[j] += p.post_w ? d.v[j] * r * p.post_w[i + j] : d.v[j];
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
        if (p.tap) *(F *)(p.tap + (size_t)blockIdx.x * p.dim + i) = o;
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
} // namespace

KGC_API cudaError_t kgc_prefill_norm(const KgPrefillNorm *p, cudaStream_t stream) {
    bool ok = p->x && p->n_tokens && p->dim && (p->delta || !p->post_w) && (p->out ? p->w && p->out_stride >= p->dim : p->delta && !p->tap);
    if (!ok) return cudaErrorInvalidValue;
    const uintptr_t all = (uintptr_t)p->x | (uintptr_t)p->delta | (uintptr_t)p->post_w | (uintptr_t)p->w | (uintptr_t)p->out | (uintptr_t)p->tap;
    if (p->dim % 4 == 0 && p->out_stride % 4 == 0 && all % 16 == 0)
        return kg_launch(kg_prefill_norm<4>, dim3(p->n_tokens), dim3(256), 0, 0, stream, *p);
    return kg_launch(kg_prefill_norm<1>, dim3(p->n_tokens), dim3(256), 0, 0, stream, *p);
}
