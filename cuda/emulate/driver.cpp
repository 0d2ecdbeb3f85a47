// The emulated device's driver: a libcuda.so.1 with the functions that src/backend/cuda/driver/sys.rs names, and those that
// tests/c/context.c uses. Device memory is the host's; launches, copies and events happen at the call, or when a captured graph
// is launched. As of a real one, its calls need a context on their thread, and a stream that one that it was made in.
#include "cuda.h"
#include "forbid.h"

#include <atomic>
#include <stdio.h>
#include <time.h>

namespace {
enum : int { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500 };
constexpr size_t MEMORY = (size_t)8 << 30;
size_t allocated;
bool initialized;

struct Context {};
Context primary;
thread_local Context *context;

// body null: a copy, or a fill of words of `word` bytes where `from` is null.
struct Node {
    Node *next;
    const emulate::Image *image;
    emulate::Launch launch;
    void *to;
    const void *from;
    size_t bytes, word;
    uint32_t value;
};
struct Graph {
    Node *first, **last;
};
struct Event {
    double at;
};
struct Attribute {
    int id, pad;
    uint32_t value[16];
};
struct LaunchConfig {
    uint32_t grid[3], block[3], shared_bytes;
    struct Stream *stream;
    const Attribute *attributes;
    uint32_t n_attributes;
};
// KIGO_EMULATE=80: a device of compute capability 8.0, with neither clusters nor tensor copies nor wgmma.
bool plain() {
    const char *v = getenv("KIGO_EMULATE");
    return v && strcmp(v, "80") == 0;
}
// A block of an H200 has 227 KiB; one of 8.9 has the least of those without the newer instructions.
int shared_most() { return (plain() ? 99 : 227) * 1024; }

struct Stream {
    Context *context;
    Graph *capture;
};
// Device memory is written and read through a stream of the thread's context; null: the context's own.
int usable(const Stream *stream) {
    if (!initialized) return NOT_INITIALIZED;
    if (!context) return INVALID_CONTEXT;
    return stream && stream->context != context ? INVALID_HANDLE : 0;
}

void do_node(const Node &n) {
    if (n.launch.body) return n.image->run(&n.launch);
    if (n.from) return (void)memmove(n.to, n.from, n.bytes);
    if (n.word == 1) return (void)memset(n.to, (int)n.value, n.bytes);
    for (size_t i = 0; i < n.bytes; i += 4) memcpy((char *)n.to + i, &n.value, 4);
}
int queue(Stream *stream, const Node &node) {
    if (const int e = usable(stream)) return e;
    if (!stream || !stream->capture) {
        do_node(node);
        free(node.launch.body);
        return 0;
    }
    Node *copy = (Node *)malloc(sizeof node);
    if (!copy) return OUT_OF_MEMORY;
    *copy = node;
    copy->next = nullptr;
    *stream->capture->last = copy;
    stream->capture->last = &copy->next;
    return 0;
}
int copy(void *to, const void *from, size_t bytes, Stream *stream) {
    if (!to || !from || !bytes) return INVALID_VALUE;
    Node node = {};
    node.to = to, node.from = from, node.bytes = bytes;
    return queue(stream, node);
}
int fill(void *to, uint32_t value, size_t word, size_t n, Stream *stream) {
    if (!to) return INVALID_VALUE;
    Node node = {};
    node.to = to, node.value = value, node.word = word, node.bytes = n * word;
    return queue(stream, node);
}
} // namespace

#pragma GCC visibility push(default)
extern "C" {
int cuInit(unsigned flags) { return initialized = flags == 0, flags ? INVALID_VALUE : 0; }
int cuGetErrorName(int code, const char **name) {
    *name = code == 0 ? "CUDA_SUCCESS" : code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code < 1000 ? "CUDA_ERROR" : nullptr;
    return *name ? 0 : INVALID_VALUE;
}
int cuGetErrorString(int code, const char **text) { return *text = code < 1000 ? "of the emulated device" : nullptr, *text ? 0 : INVALID_VALUE; }
int cuDeviceGetCount(int *n) { return *n = 1, initialized ? 0 : NOT_INITIALIZED; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? 0 : 101; }
int cuDeviceGetName(char *name, int n, int) { return snprintf(name, (size_t)n, "emulated device"), 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int) {
    for (int i = 0; i < 16; i++) uuid[i] = (unsigned char)(0xe0 + i);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = MEMORY, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    // Multiprocessors; compute capability; shared memory of a block.
    *value = attribute == 16 ? 4 : attribute == 75 ? (plain() ? 8 : 9) : attribute == 97 ? shared_most() : 0;
    return 0;
}

// Contexts.
int cuDevicePrimaryCtxRetain(Context **out, int) { return *out = &primary, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxGetCurrent(Context **out) { return *out = context, 0; }
int cuCtxSetCurrent(Context *to) { return context = to, 0; }
int cuCtxGetDevice(int *device) { return *device = 0, context ? 0 : INVALID_CONTEXT; }
int cuCtxCreate_v2(Context **out, unsigned, int) {
    *out = context = (Context *)malloc(1);
    return context ? 0 : OUT_OF_MEMORY;
}
int cuCtxDestroy_v2(Context *c) {
    if (c == context) context = nullptr;
    return free(c), 0;
}

// Memory. That of the device begins as NaN; its size stands in front.
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    *total = MEMORY;
    *free = MEMORY - __atomic_load_n(&allocated, __ATOMIC_RELAXED);
    return usable(nullptr);
}
int cuMemAlloc_v2(void **at, size_t bytes) {
    *at = nullptr;
    if (const int e = usable(nullptr)) return e;
    if (!bytes) return INVALID_VALUE;
    char *p = nullptr;
    if (__atomic_add_fetch(&allocated, bytes, __ATOMIC_RELAXED) <= MEMORY) p = (char *)aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!p) return __atomic_sub_fetch(&allocated, bytes, __ATOMIC_RELAXED), OUT_OF_MEMORY;
    *(size_t *)p = bytes;
    memset(p + 256, 0xff, bytes);
    forbid(p + 256 + bytes, (bytes + 511) / 256 * 256 - 256 - bytes);
    *at = p + 256;
    return 0;
}
int cuMemFree_v2(void *at) {
    if (const int e = usable(nullptr)) return e;
    if (!at) return 0;
    char *p = (char *)at - 256;
    __atomic_sub_fetch(&allocated, *(size_t *)p, __ATOMIC_RELAXED);
    allow(p, (*(size_t *)p + 511) / 256 * 256);
    return free(p), 0;
}
int cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    *at = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *at ? usable(nullptr) : OUT_OF_MEMORY;
}
int cuMemFreeHost(void *at) { return free(at), usable(nullptr); }
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) { return copy(to, from, bytes, stream); }
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) { return copy(to, from, bytes, stream); }
int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) { return copy(to, from, bytes, stream); }
int cuMemcpyDtoH_v2(void *to, const void *from, size_t bytes) { return copy(to, from, bytes, nullptr); }
int cuMemsetD8Async(void *to, unsigned char value, size_t n, Stream *stream) { return fill(to, value, 1, n, stream); }
int cuMemsetD32Async(void *to, unsigned value, size_t n, Stream *stream) { return fill(to, value, 4, n, stream); }

// Streams, and what they capture.
int cuStreamCreate(Stream **stream, unsigned) {
    if (const int e = usable(nullptr)) return e;
    *stream = (Stream *)calloc(1, sizeof **stream);
    if (!*stream) return OUT_OF_MEMORY;
    (*stream)->context = context;
    return 0;
}
int cuStreamDestroy_v2(Stream *stream) { return free(stream), usable(nullptr); }
int cuStreamSynchronize(Stream *stream) { return usable(stream); }
int cuThreadExchangeStreamCaptureMode(int *mode) {
    static thread_local int current; // global, as it begins
    const int was = current;
    current = *mode, *mode = was;
    return 0;
}
int cuStreamBeginCapture_v2(Stream *stream, int) {
    if (const int e = usable(stream)) return e;
    if (!stream || stream->capture) return 900;
    Graph *g = (Graph *)calloc(1, sizeof *g);
    if (!g) return OUT_OF_MEMORY;
    g->last = &g->first;
    stream->capture = g;
    return 0;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
    *graph = stream->capture;
    stream->capture = nullptr;
    return *graph ? 0 : INVALID_VALUE;
}
// The executable graph takes the nodes; what is left of the graph is empty.
int cuGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long) {
    *exec = (Graph *)malloc(sizeof **exec);
    if (!*exec) return OUT_OF_MEMORY;
    **exec = *graph;
    graph->first = nullptr;
    return 0;
}
int cuGraphLaunch(Graph *exec, Stream *stream) {
    if (const int e = usable(stream)) return e;
    for (Node *n = exec->first; n; n = n->next) do_node(*n);
    return 0;
}
int cuGraphDestroy(Graph *graph) {
    for (Node *n = graph->first; n;) {
        Node *next = n->next;
        free(n->launch.body);
        free(n);
        n = next;
    }
    return free(graph), 0;
}
int cuGraphExecDestroy(Graph *exec) { return cuGraphDestroy(exec); }
int cuEventCreate(Event **event, unsigned) {
    if (const int e = usable(nullptr)) return e;
    *event = (Event *)calloc(1, sizeof **event);
    return *event ? 0 : OUT_OF_MEMORY;
}
int cuEventDestroy_v2(Event *event) { return free(event), usable(nullptr); }
int cuEventRecord(Event *event, Stream *stream) {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    event->at = (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
    return usable(stream);
}
int cuEventSynchronize(Event *) { return usable(nullptr); }
int cuEventElapsedTime(float *ms, Event *start, Event *end) { return *ms = (float)(end->at - start->at), 0; }

// Kernels. One of these is its image: what it does is the launch's argument.
int cuLibraryLoadData(const emulate::Image **library, const emulate::Image *code, int *, void **, unsigned, int *, void **, unsigned) {
    if (!code || code->magic != emulate::MAGIC) return 200;
    return *library = code, 0;
}
int cuLibraryGetKernel(const emulate::Image **kernel, const emulate::Image *library, const char *name) {
    return *kernel = library, strcmp(name, "kernel") == 0 ? 0 : NOT_FOUND;
}
// What launches may ask for: all kernels have one image, so this is what any of them was given last.
static std::atomic<int> shared_bytes{48 * 1024};
// The attributes are those of a kernel whose body is there on devices of compute capability 9.0 alone: it has some shared memory.
int cuKernelGetAttribute(int *value, int attribute, const emulate::Image *, int) {
    *value = attribute == 1 ? !plain() : attribute == 5 || attribute == 6 ? (plain() ? 80 : 90) : attribute == 8 ? shared_bytes.load() : 0;
    return 0;
}
int cuKernelSetAttribute(int attribute, int bytes, const emulate::Image *, int) {
    if (attribute != 8 || bytes > 227 * 1024) return INVALID_VALUE;
    return shared_bytes = bytes, 0;
}
int cuLaunchKernelEx(const LaunchConfig *c, const emulate::Image *kernel, void **arguments, void **) {
    uint32_t together = 1;
    for (uint32_t i = 0; i < c->n_attributes; i++)
        if (c->attributes[i].id == 4) together = c->attributes[i].value[0];
    const uint32_t *g = c->grid, *b = c->block;
    const bool grid = g[0] && g[1] && g[2] && g[1] <= 65535 && g[2] <= 65535;
    const bool ok = grid && b[0] && b[0] <= 1024 && b[1] == 1 && b[2] == 1 && c->shared_bytes <= (size_t)shared_bytes;
    if (!ok || together == 0 || together > 8 || g[0] % together != 0) return INVALID_VALUE;
    Node node = {};
    node.image = kernel;
    node.launch = {{g[0], g[1], g[2]}, {b[0], b[1], b[2]}, together, c->shared_bytes, (emulate::Call *)arguments[0]};
    return queue(c->stream, node);
}
int cuTensorMapEncodeTiled(CUtensorMap *map, int type, uint32_t rank, void *base, const cuuint64_t *sizes, const cuuint64_t *pitch,
                           const cuuint32_t *box, const cuuint32_t *steps, int, int swizzle, int, int) {
    const bool ok = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 && rank == 2 && swizzle == CU_TENSOR_MAP_SWIZZLE_128B && steps[0] == 1 && steps[1] == 1;
    if (!ok || (uintptr_t)base % 16 != 0 || pitch[0] % 16 != 0 || box[0] * 2 > 128 || box[1] > 256 || !sizes[0] || !sizes[1]) return INVALID_VALUE;
    *map = {(const char *)base, sizes[0], sizes[1], pitch[0], box[0], box[1]};
    return CUDA_SUCCESS;
}
}
#pragma GCC visibility pop
