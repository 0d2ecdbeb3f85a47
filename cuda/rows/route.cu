// Which experts each row goes through, and with what weights (route.cuh): a warp a row.
//
// Bytes moved: the logits once. Reference: tests/gpu/operations/experts.rs.
#include "rows/route.cuh"

static __global__ void __launch_bounds__(32) kg_route(const __grid_constant__ KgRoute p) {
    KG_SHARED(KgRouteRoom, room);
    kg_begin();
    for (uint32_t i = threadIdx.x; i < p.n; i += 32) room.logits[i] = p.logits[(size_t)blockIdx.x * p.stride + i];
    __syncwarp();
    kg_route_row(p, blockIdx.x, room);
}

KGC_API cudaError_t kgc_route(const KgRoute *p, int pdl, cudaStream_t stream) {
    if (!kg_route_check(p)) return cudaErrorInvalidValue;
    return kg_launch(kg_route, dim3(p->n_rows), dim3(32), 0, pdl, stream, *p);
}
