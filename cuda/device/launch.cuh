// How every kernel of this folder is started, and how its launchers are declared.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#define KGC_API extern "C" __attribute__((visibility("hidden")))

// A variable of the block, or an array: KG_SHARED(float[8], red); the memory that the launch asks for, of any number of elements.
template <typename T> using kg_same = T;
#ifndef KG_EMULATE
#define KG_SHARED(type, name) __shared__ __align__(16) kg_same<type> name
#define KG_DYNAMIC_SHARED(type, name) extern __shared__ __align__(128) type name[]
#define KG_NEXT_CLUSTER(blocks)
#else
#define KG_SHARED(type, name)            \
    static const char kg_place_##name = 0; \
    kg_same<type> &name = *(kg_same<type> *)emulate::static_shared(&kg_place_##name, sizeof(kg_same<type>))
#define KG_DYNAMIC_SHARED(type, name) type *name = (type *)emulate::dynamic_shared()
#define KG_NEXT_CLUSTER(blocks) emulate::next_cluster(blocks)
#endif

// What a kernel's own variables take of shared memory at most.
constexpr size_t KG_STATIC_SHARED = 24 * 1024;

// Shared memory that a block of the current device may ask for.
static inline size_t kg_shared_most() {
    int device = 0, bytes = 0;
    if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
        return cudaGetLastError(), 48 * 1024;
    return (size_t)bytes;
}

// Launch with the programmatic dependence of compute capability 9.0 where `pdl` is set.
template <typename... P, typename... A>
static inline cudaError_t kg_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, int pdl, cudaStream_t stream, A &&...args) {
    // Of 48 KiB that a launch may have unasked a kernel's own variables are a part: none has more than this.
    if (smem > 48 * 1024 - KG_STATIC_SHARED) {
        cudaError_t e = cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem);
        if (e != cudaSuccess) return cudaGetLastError(), e;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    cudaLaunchAttribute attribute[1];
    attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute[0].val.programmaticStreamSerializationAllowed = 1;
    config.attrs = attribute;
    config.numAttrs = pdl ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, args...);
}
