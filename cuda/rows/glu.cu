// h = activation(gate) * up, or activation(gate), of rows: where the products cannot do it themselves, since gate and up differ in type,
// have biases, or there is no up to multiply with.
//
//   row = h f32, out = f16(h), out_lo what its rounding leaves; f16 results are clamped to +-65504
// Geometry: 256 threads of V neighbours each, blockIdx.y a row. Bytes moved: gate and up once, row and out once.
// Reference: tests/gpu/operations/rows.rs.
#include "device/activation.cuh"
#include "device/vectors.cuh"

namespace {
template <int V> __global__ void __launch_bounds__(256) kg_glu(const __grid_constant__ KgGlu p) {
    using F = KgFloats<V>;
    const uint32_t i = (blockIdx.x * 256 + threadIdx.x) * V;
    if (i >= p.n) return;
    const size_t from = (size_t)blockIdx.y * p.in_stride + i, to = (size_t)blockIdx.y * p.out_stride + i;
    F h = *(const F *)(p.gate + from);
    if (p.up) {
        const F up = *(const F *)(p.up + (p.up_stride ? (size_t)blockIdx.y * p.up_stride + i : from));
#pragma unroll
        for (int j = 0; j < V; j++) h.v[j] = kg_gated(p.activation, h.v[j], up.v[j]);
    } else {
#pragma unroll
        for (int j = 0; j < V; j++) h.v[j] = kg_activation_any(p.activation, h.v[j]);
    }
    if (p.row) *(F *)(p.row + to) = h;
    if (!p.out) return;
    KgHalves<V> hi, lo;
#pragma unroll
    for (int j = 0; j < V; j++) {
        hi.v[j] = __float2half_rn(kg_clamp16(h.v[j]));
        lo.v[j] = __float2half_rn(kg_clamp16(h.v[j] - __half2float(hi.v[j])));
    }
    *(KgHalves<V> *)((__half *)p.out + to) = hi;
    if (p.out_lo) *(KgHalves<V> *)((__half *)p.out_lo + to) = lo;
}

template <int V> cudaError_t run_glu(const KgGlu *p, cudaStream_t stream) {
    return kg_launch(kg_glu<V>, dim3((p->n + 256 * V - 1) / (256 * V), p->n_rows), dim3(256), 0, 0, stream, *p);
}
} // namespace

KGC_API cudaError_t kgc_glu(const KgGlu *p, cudaStream_t stream) {
    bool ok = p->gate && (p->row || p->out) && (p->out || !p->out_lo) && p->n_rows && p->n_rows <= 65535 && p->n;
    ok = ok && p->in_stride >= p->n && p->out_stride >= p->n && p->activation >= KG_ACTIVATION_SILU && p->activation <= KG_ACTIVATION_CLAMPED_SWIGLU;
    ok = ok && (p->activation != KG_ACTIVATION_CLAMPED_SWIGLU || p->up) && (!p->up_stride || p->up_stride >= p->n);
    if (!ok) return cudaErrorInvalidValue;
    const uintptr_t all = (uintptr_t)p->gate | (uintptr_t)p->up | (uintptr_t)p->row | (uintptr_t)p->out | (uintptr_t)p->out_lo;
    const bool four = p->n % 4 == 0 && p->in_stride % 4 == 0 && p->out_stride % 4 == 0 && p->up_stride % 4 == 0 && all % 16 == 0;
    return four ? run_glu<4>(p, stream) : run_glu<1>(p, stream);
}
