// What attention has mixed, in its place, times the sigmoid of a gate: mix * sigmoid(gate), of rows; f16 results are clamped to +-65504.
//
// Geometry: 256 threads, an element each, blockIdx.y a row. Bytes moved: gate once, mix twice. Reference: tests/gpu/operations/recurrent.rs.
#include "rows/spans.cuh"

namespace {
__global__ void __launch_bounds__(256) kg_gate_mix(const __grid_constant__ KgGateMix p) {
    const uint32_t i = blockIdx.x * 256 + threadIdx.x;
    if (i >= p.n) return;
    const size_t at = (size_t)blockIdx.y * p.stride + i;
    const float gate = 1.f / (1.f + expf(-p.gate[(size_t)blockIdx.y * p.gate_stride + i]));
    float mix = p.row ? p.row[at] : __half2float(((const __half *)p.out)[at]);
    if (p.out_lo) mix = __fadd_rn(mix, __half2float(((const __half *)p.out_lo)[at]));
    kg_put_row(p.row, p.out, p.out_lo, at, __fmul_rn(mix, gate));
}
} // namespace

KGC_API cudaError_t kgc_gate_mix(const KgGateMix *p, cudaStream_t stream) {
    bool ok = p->gate && !p->row == !!p->out && (p->out || !p->out_lo) && p->n_rows && p->n_rows <= 65535 && p->n;
    if (!ok || p->gate_stride < p->n || p->stride < p->n) return cudaErrorInvalidValue;
    return kg_launch(kg_gate_mix, dim3((p->n + 255) / 256, p->n_rows), dim3(256), 0, 0, stream, *p);
}
