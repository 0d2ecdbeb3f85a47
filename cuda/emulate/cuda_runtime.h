// The CUDA runtime as far as the launchers see it; emulate.cpp has what the library calls through src/backend/cuda/driver/sys.rs.
#pragma once
#include "emulate.h"
#include <initializer_list>
#include <new>

typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorNotSupported = 801 };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaLaunchAttributeProgrammaticStreamSerialization };
typedef struct KgEmulatedStream *cudaStream_t;

extern "C" cudaError_t cudaGetLastError();

struct cudaLaunchAttribute {
    int id;
    struct { int programmaticStreamSerializationAllowed; } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};
// A block of an H200 has 227 KiB.
static inline cudaError_t cudaFuncSetAttribute(const void *, int, int bytes) { return bytes <= 227 * 1024 ? cudaSuccess : cudaErrorInvalidValue; }

struct cudaFuncAttributes {
    size_t sharedSizeBytes;
    int ptxVersion;
};
enum { cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
extern "C" cudaError_t cudaGetDevice(int *device);
extern "C" cudaError_t cudaDeviceGetAttribute(int *value, int attribute, int device);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *);
typedef int cudaDriverEntryPointQueryResult;
enum { cudaEnableDefault = 0, cudaDriverEntryPointSuccess = 0 };
extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **entry, unsigned version, unsigned long long flags, int *found);

// Runs the body, or records it where the stream is captured; frees the body when it is not needed any more.
cudaError_t emulate_launch(const cudaLaunchConfig_t *config, emulate::Call *body);

template <typename... P, typename... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...), A &&...args) {
    auto body = [kernel, args...]() mutable { kernel(args...); };
    using Body = emulate::Body<decltype(body)>;
    return emulate_launch(config, new (aligned_alloc(64, (sizeof(Body) + 63) / 64 * 64)) Body(body));
}
