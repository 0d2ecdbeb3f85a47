// Barriers in shared memory, and the copy engine that arrives at them: compute capability 9.0 and every later one.
//
// KG_SM90 where they are there. On the emulated device they come from emulate/wgmma.h.
#pragma once
#include "device/launch.cuh"

#if defined(KG_EMULATE)
#define KG_SM90 1
#include "emulate/wgmma.h"
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define KG_SM90 1

__device__ __forceinline__ void kg_bar_init(uint32_t bar, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
__device__ __forceinline__ void kg_bar_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void kg_bar_expect(uint32_t bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
// One arrival, when this thread's asynchronous copies until here are there.
__device__ __forceinline__ void kg_bar_arrive_copies(uint32_t bar) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void kg_bar_wait(uint32_t bar, uint32_t parity) {
    uint32_t done = 0;
    while (!done)
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(done) : "r"(bar), "r"(parity) : "memory");
}
// A box of 64 elements x the map's rows from (column, row); what lies outside the tensor comes as zeros.
__device__ __forceinline__ void kg_copy_box(uint32_t to, const void *map, uint32_t bar, uint32_t column, uint32_t row) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 ::"r"(to), "l"(map), "r"(bar), "r"(column), "r"(row) : "memory");
}
// `bytes`, a multiple of 16, from global to shared memory; both addresses are too.
__device__ __forceinline__ void kg_copy_bulk(uint32_t to, const void *from, uint32_t bytes, uint32_t bar) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(bar) : "memory");
}
// What the barriers' first values, written by this thread, need before the copy engine uses them.
__device__ __forceinline__ void kg_bar_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// This thread's writes to shared memory come before what the tensor cores read of it from here on.
__device__ __forceinline__ void kg_async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#endif
