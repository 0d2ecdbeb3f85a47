// The CUDA runtime as far as the launchers see it: as of CUDA's header, in what they use of it. Its functions are those of the
// registry (src/backend/cuda/driver/registry.rs), which asks the emulated driver.
#pragma once
#include "emulate.h"
#include <initializer_list>
#include <new>

typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorNotSupported = 801 };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
enum { cudaLaunchAttributeClusterDimension = 4, cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
enum { cudaEnableDefault = 0, cudaDriverEntryPointSuccess = 0 };
typedef int cudaDriverEntryPointQueryResult;
typedef struct EmulatedStream *cudaStream_t;

struct cudaLaunchAttribute {
    int id;
    union alignas(8) {
        int programmaticStreamSerializationAllowed;
        struct { unsigned x, y, z; } clusterDim;
        char pad[64];
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes, constSizeBytes, localSizeBytes;
    int maxThreadsPerBlock, numRegs, ptxVersion, binaryVersion, cacheModeCA, maxDynamicSharedSizeBytes;
};

extern "C" {
cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaDeviceGetAttribute(int *value, int attribute, int device);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *kernel);
cudaError_t cudaFuncSetAttribute(const void *kernel, int attribute, int value);
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **entry, unsigned version, unsigned long long flags, int *found);
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments);
}
#define cudaFuncGetAttributes(a, ...) (cudaFuncGetAttributes)(a, emulate::registered(__VA_ARGS__))
#define cudaFuncSetAttribute(kernel, attribute, value) (cudaFuncSetAttribute)(emulate::registered(kernel), attribute, value)

// The one argument that reaches the driver is the call with all of them, which is the driver's from then on.
template <typename... P, typename... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...), A &&...args) {
    auto body = [kernel, args...]() mutable { kernel(args...); };
    using Body = emulate::Body<decltype(body)>;
    cudaLaunchConfig_t c = *config;
    cudaLaunchAttribute attributes[4];
    if (c.numAttrs > 3) return cudaErrorInvalidValue;
    for (unsigned i = 0; i < c.numAttrs; i++) attributes[i] = c.attrs[i];
    // What nvcc writes into a kernel that is declared so.
    attributes[c.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[c.numAttrs++].val.clusterDim = {emulate::take_cluster(), 1, 1};
    c.attrs = attributes;
    void *call = new (aligned_alloc(64, (sizeof(Body) + 63) / 64 * 64)) Body(body);
    const cudaError_t e = cudaLaunchKernelExC(&c, emulate::registered((const void *)kernel), &call);
    if (e != cudaSuccess) free(call);
    return e;
}
