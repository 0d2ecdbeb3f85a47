// A libcuda.so.1 that computes nothing and writes down what it is asked, into the file that FAKE_DRIVER_LOG names: images and the
// names of kernels, what they are launched with, and `fault` where a real driver would refuse. Memory of its device is the host's.
//
// Built with -DcuLibraryLoadData=unnamed it is a driver that has no such function (tests/c/driver.rs).
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int result;
struct image {
    const void *code;
};
struct kernel {
    char name[256];
    int shared;
};
struct attribute {
    int id, pad;
    uint32_t value[16];
};
struct config {
    uint32_t grid[3], block[3], shared;
    void *stream;
    const struct attribute *attributes;
    uint32_t n_attributes;
};

static char primary, n_started;
static __thread void *context;
static __thread int mode;

static void note(const char *format, ...)
{
    const char *path = getenv("FAKE_DRIVER_LOG");
    FILE *log = path == NULL ? NULL : fopen(path, "a");
    va_list arguments;
    if (log == NULL)
        return;
    va_start(arguments, format);
    vfprintf(log, format, arguments);
    va_end(arguments);
    fclose(log);
}

// What nearly every call needs.
static void ready(const char *call)
{
    if (!n_started || context != &primary)
        note("fault: %s without a context\n", call);
}

result cuInit(unsigned flags) { return n_started = 1, (result)flags; }
result cuGetErrorName(result code, const char **name) { return *name = "CUDA_ERROR_OF_A_FAKE", code < 0; }
result cuGetErrorString(result code, const char **text) { return *text = "of a fake", code < 0; }
result cuDeviceGetCount(int *n) { return *n = 1, 0; }
result cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
result cuDeviceGetAttribute(int *value, int attribute, int device)
{
    // As of an H200, but for its 132 multiprocessors.
    *value = attribute == 16 ? 4 : attribute == 75 ? 9 : attribute == 97 ? 227 * 1024 : 0;
    return device;
}
result cuDeviceGetName(char *name, int n, int device) { return snprintf(name, (size_t)n, "fake device"), device; }
result cuDeviceGetUuid_v2(unsigned char *uuid, int device) { return memset(uuid, 0xfa, 16), device; }
result cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = (size_t)2 << 30, device; }
result cuDevicePrimaryCtxRelease_v2(int device) { return device; }
result cuDevicePrimaryCtxRetain(void **out, int device) { return *out = &primary, device; }
result cuCtxGetCurrent(void **out) { return *out = context, 0; }
result cuCtxSetCurrent(void *to) { return context = to, 0; }
result cuCtxGetDevice(int *device) { return ready("cuCtxGetDevice"), *device = 0, 0; }

result cuMemGetInfo_v2(size_t *free, size_t *all) { return ready("cuMemGetInfo"), *free = *all = (size_t)2 << 30, 0; }
result cuMemAlloc_v2(void **at, size_t bytes) { return ready("cuMemAlloc"), *at = aligned_alloc(256, (bytes + 255) / 256 * 256), *at == NULL ? 2 : (memset(*at, 0, bytes), 0); }
result cuMemFree_v2(void *at) { return ready("cuMemFree"), free(at), 0; }
result cuMemHostAlloc(void **at, size_t bytes, unsigned flags) { return (void)flags, cuMemAlloc_v2(at, bytes); }
result cuMemFreeHost(void *at) { return cuMemFree_v2(at); }
static result copy(void *to, const void *from, size_t bytes, void *stream)
{
    ready("a copy");
    if (bytes == 0 || to == NULL || from == NULL || stream == NULL)
        note("fault: a copy of %zu bytes from %p to %p\n", bytes, from, to);
    return memmove(to, from, bytes), 0;
}
result cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) { return copy(to, from, bytes, stream); }
result cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *stream) { return copy(to, from, bytes, stream); }
result cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) { return copy(to, from, bytes, stream); }
result cuMemsetD8Async(void *to, unsigned char value, size_t n, void *stream) { return ready("cuMemsetD8Async"), (void)stream, memset(to, value, n), 0; }

static result make(void **out) { return ready("a handle"), *out = malloc(1), 0; }
result cuStreamCreate(void **out, unsigned flags) { return (void)flags, make(out); }
result cuStreamDestroy_v2(void *stream) { return free(stream), 0; }
result cuStreamSynchronize(void *stream) { return (void)stream, ready("cuStreamSynchronize"), 0; }
result cuThreadExchangeStreamCaptureMode(int *other)
{
    const int was = mode;
    mode = *other, *other = was;
    return 0;
}
result cuStreamBeginCapture_v2(void *stream, int how) { return (void)stream, note("capture %d\n", how), 0; }
result cuStreamEndCapture(void *stream, void **graph) { return (void)stream, make(graph); }
result cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) { return (void)graph, (void)flags, make(exec); }
result cuGraphLaunch(void *exec, void *stream) { return (void)exec, (void)stream, ready("cuGraphLaunch"), note("graph\n"), 0; }
result cuGraphDestroy(void *graph) { return free(graph), 0; }
result cuGraphExecDestroy(void *exec) { return free(exec), 0; }
result cuEventCreate(void **out, unsigned flags) { return (void)flags, make(out); }
result cuEventDestroy_v2(void *event) { return free(event), 0; }
result cuEventRecord(void *event, void *stream) { return (void)event, (void)stream, ready("cuEventRecord"), 0; }
result cuEventSynchronize(void *event) { return (void)event, ready("cuEventSynchronize"), 0; }
result cuEventElapsedTime(float *ms, void *start, void *end) { return (void)start, (void)end, *ms = 1, 0; }

result cuLibraryLoadData(struct image **library, const void *code, void *a, void *b, unsigned n, void *c, void *d, unsigned m)
{
    uint32_t magic;
    memcpy(&magic, code, sizeof magic);
    note("image %08x\n", magic);
    if (mode != 2 || a != NULL || b != NULL || n != 0 || c != NULL || d != NULL || m != 0)
        note("fault: an image in mode %d with %u and %u options\n", mode, n, m);
    *library = malloc(sizeof **library);
    return *library == NULL ? 2 : ((*library)->code = code, 0);
}
result cuLibraryGetKernel(struct kernel **out, struct image *library, const char *name)
{
    if (library == NULL || library->code == NULL || mode != 2)
        note("fault: the kernel %s of no image\n", name);
    note("kernel %s\n", name);
    *out = calloc(1, sizeof **out);
    return *out == NULL ? 2 : (snprintf((*out)->name, sizeof(*out)->name, "%s", name), 0);
}
result cuKernelGetAttribute(int *value, int attribute, struct kernel *kernel, int device)
{
    // Shared memory; the version of its PTX and of its code.
    *value = attribute == 1 ? 1024 : attribute == 5 || attribute == 6 ? 90 : 0;
    return (void)kernel, device;
}
result cuKernelSetAttribute(int attribute, int value, struct kernel *kernel, int device)
{
    if (attribute != 8 || device != 0)
        note("fault: attribute %d of %s on device %d\n", attribute, kernel->name, device);
    note("shared %s %d\n", kernel->name, value);
    return kernel->shared = value, 0;
}
result cuLaunchKernelEx(const struct config *c, struct kernel *kernel, void **arguments, void **extra)
{
    ready("cuLaunchKernelEx");
    if (c->stream == NULL || arguments == NULL || extra != NULL || (c->shared > 48 * 1024 && (int)c->shared > kernel->shared))
        note("fault: a launch of %s with %u bytes of shared memory\n", kernel->name, c->shared);
    note("launch %s grid %u %u %u block %u %u %u shared %u", kernel->name, c->grid[0], c->grid[1], c->grid[2], c->block[0],
         c->block[1], c->block[2], c->shared);
    for (uint32_t i = 0; i < c->n_attributes; i++)
        note(" attribute %d %u", c->attributes[i].id, c->attributes[i].value[0]);
    note("\n");
    return 0;
}
result cuTensorMapEncodeTiled(void *map) { return memset(map, 0, 128), 0; }
