// The emulated device: its threads, which run what its driver (driver.cpp) is asked to launch.
#include "forbid.h"

#include <stdio.h>
#include <sys/mman.h>

thread_local uint3 threadIdx, blockIdx;
thread_local dim3 blockDim, gridDim;
thread_local emulate::Here emulate::here;

namespace {
using namespace emulate;
#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK = 1 << 20; // frames with room between their variables
#else
constexpr size_t STACK = 256 << 10;
#endif
constexpr uint32_t MOST = 8192, PLACES = 8; // threads at once; variables of a block

struct Fiber {
    void *stack, *at; // at: where it goes on
    const uint32_t *until; // waits while *until == value
    uint32_t value;
    uint3 thread;
    uint32_t block; // of those that run together
    Here here;
    bool done;
    bool can_run() const { return !done && !(until && *until == value); }
};
struct Block {
    Barrier barrier, named[16]; // of all its threads; of some, by their number
    uint3 at;
    Warp *warps;
    char *shared;
    size_t written; // bytes of it that the launch before had
    const void *place[PLACES];
    uint32_t offset[PLACES], places, used;
};

// What a host thread has; made at its first launch and kept.
thread_local Fiber *fibers;
thread_local Warp *warps;
thread_local Block blocks[8];
thread_local Barrier cluster;
thread_local uint32_t n_fibers, n_blocks, current, cluster_next = 1;
thread_local void *host;
thread_local emulate::Call *body;

// Keeps the registers that a call keeps, leaves one stack for another.
extern "C" void kg_emulate_switch(void **from, void *to);
asm(R"(
.text
.type kg_emulate_switch, @function
kg_emulate_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size kg_emulate_switch, .-kg_emulate_switch
.section .note.GNU-stack,"",@progbits
.text
)");

// The next fiber that can run, of this one's warp before others, whose stacks are in no cache: its number, or n_fibers.
uint32_t next() {
    const uint32_t first = current - fibers[current].thread.x % 32, rest = blockDim.x - fibers[first].thread.x;
    const uint32_t end = first + (rest < 32 ? rest : 32);
    for (uint32_t n = current + 1; n < end; n++)
        if (fibers[n].can_run()) return n;
    for (uint32_t n = first; n <= current; n++)
        if (fibers[n].can_run()) return n;
    for (uint32_t n = end; n < n_fibers; n++)
        if (fibers[n].can_run()) return n;
    for (uint32_t n = 0; n < first; n++)
        if (fibers[n].can_run()) return n;
    return n_fibers;
}
// Goes on with the next one; the host when all have ended.
void go_on() {
    Fiber *me = &fibers[current];
    const uint32_t n = next();
    if (n == n_fibers) {
        for (uint32_t i = 0; i < n_fibers; i++)
            if (!fibers[i].done) die("threads wait for one another in vain");
        return kg_emulate_switch(&me->at, host);
    }
    Fiber *f = &fibers[n];
    f->until = nullptr;
    if (n == current) return;
    current = n;
    threadIdx = f->thread;
    blockIdx = blocks[f->block].at;
    here = f->here;
    kg_emulate_switch(&me->at, f->at);
}

void check(Barrier &b) {
    if (b.threads > 0 && b.arrived == b.threads) b.arrived = 0, b.turn++;
}
void arrive(Barrier &b) {
    Fiber *f = &fibers[current];
    f->until = &b.turn;
    f->value = b.turn;
    b.arrived++;
    check(b);
    go_on();
}
void leave(Barrier &b) {
    b.threads--;
    check(b);
}

void thread_main() {
    body->run(body);
    Fiber *f = &fibers[current];
    f->done = true;
    leave(f->here.warp->barrier);
    leave(blocks[f->block].barrier);
    leave(cluster);
    go_on();
    __builtin_unreachable();
}

void prepare(uint32_t n, uint3 at, uint32_t block) {
    Fiber *f = &fibers[n];
    if (!f->stack) {
        f->stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (f->stack == MAP_FAILED) die("no memory for a stack");
    }
    allow(f->stack, STACK); // frames that were left by a switch
    // Six registers, then where to go; the stack as a function expects it behind a call.
    // Not all at the same place of a page, where a first-level cache has room for eight of them.
    void **top = (void **)((char *)f->stack + STACK - n % 64 * 64) - 1;
    *top = nullptr;
    *--top = (void *)thread_main;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f->at = top;
    f->until = nullptr;
    f->thread = at;
    f->block = block;
    f->here = {blocks[block].shared, &blocks[block].warps[at.x / 32]};
    f->done = false;
}

void run_together(uint32_t first, uint32_t count, size_t shared_bytes) {
    const uint32_t threads = blockDim.x, per = (threads + 31) / 32;
    n_blocks = count;
    n_fibers = count * threads;
    cluster = {0, 0, n_fibers};
    for (uint32_t b = 0; b < count; b++) {
        Block &k = blocks[b];
        const uint32_t at = first + b;
        k.at = {at % gridDim.x, at / gridDim.x % gridDim.y, at / gridDim.x / gridDim.y};
        k.barrier = {0, 0, threads};
        memset(k.named, 0, sizeof k.named);
        k.warps = warps + b * per;
        // NaN to those who read before they write: all of it at first, then what the launch before may have written.
        const bool made = !k.shared;
        if (made) k.shared = (char *)aligned_alloc(1024, SHARED + FIXED);
        if (!k.shared) die("no memory for a block");
        allow(k.shared, SHARED + FIXED);
        memset(k.shared, 0xff, made ? SHARED + FIXED : k.written);
        if (!made) memset(k.shared + SHARED, 0xff, k.used);
        k.written = shared_bytes;
        k.places = k.used = 0;
        forbid(k.shared + shared_bytes, SHARED + FIXED - shared_bytes);
        for (uint32_t w = 0; w < per; w++) k.warps[w].barrier = {0, 0, threads - 32 * w < 32 ? threads - 32 * w : 32};
        for (uint32_t t = 0; t < threads; t++) prepare(b * threads + t, {t, 0, 0}, b);
    }
    current = 0;
    threadIdx = fibers[0].thread;
    blockIdx = blocks[0].at;
    here = fibers[0].here;
    kg_emulate_switch(&host, fibers[0].at);
}

void run(const emulate::Launch *launch) {
    const emulate::Launch &l = *launch;
    if (!fibers) fibers = (Fiber *)calloc(MOST, sizeof(Fiber));
    if (!warps) warps = (Warp *)malloc(sizeof(Warp) * MOST / 32);
    if (!fibers || !warps) die("no memory for threads");
    gridDim = l.grid, blockDim = l.block, body = l.body;
    const uint32_t all = gridDim.x * gridDim.y * gridDim.z;
    for (uint32_t b = 0; b < all; b += l.together) run_together(b, l.together, l.shared_bytes);
}
} // namespace

namespace emulate {
[[noreturn]] void die(const char *what) {
    fprintf(stderr, "emulated device: %s (block %u %u %u of %u %u %u, thread %u of %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z,
            gridDim.x, gridDim.y, gridDim.z, threadIdx.x, blockDim.x);
    abort();
}
void *static_shared(const void *place, size_t bytes) {
    Block &b = blocks[fibers[current].block];
    for (uint32_t i = 0; i < b.places; i++)
        if (b.place[i] == place) return b.shared + SHARED + b.offset[i];
    b.used = (b.used + 127) / 128 * 128;
    if (b.places == PLACES || b.used + bytes > FIXED) die("too many shared variables");
    b.place[b.places] = place;
    b.offset[b.places++] = b.used;
    b.used += (uint32_t)bytes;
    allow(b.shared + SHARED + b.offset[b.places - 1], bytes);
    return b.shared + SHARED + b.offset[b.places - 1];
}
const void *shared_of(const void *mine, uint32_t rank) {
    if (rank >= n_blocks) die("rank outside the cluster");
    return blocks[rank].shared + shared_offset(mine);
}
uint32_t cluster_rank() { return fibers[current].block; }

void block_barrier() { arrive(blocks[fibers[current].block].barrier); }
void named_barrier(uint32_t id, uint32_t threads) {
    Barrier &b = blocks[fibers[current].block].named[id % 16];
    if (b.arrived && b.threads != threads) die("a barrier of two numbers of threads");
    b.threads = threads;
    arrive(b);
}
void cluster_barrier() { arrive(cluster); }
void warp_barrier() { arrive(here.warp->barrier); }
void wait_while(const uint32_t *p, uint32_t value) {
    fibers[current].until = p;
    fibers[current].value = value;
    go_on();
}
void next_cluster(uint32_t n) { cluster_next = n; }
uint32_t take_cluster() {
    const uint32_t n = cluster_next;
    cluster_next = 1;
    return n;
}

extern "C" void *__cudaRegisterFatBinary(const void *wrapper);
extern "C" void __cudaRegisterFunction(void *image, const void *stub, const char *, const char *name, int);
const void *registered(const void *kernel) {
    static const Image code = {MAGIC, run};
    static const struct { int magic, version; const void *code, *unused; } wrapper = {0x466243b1, 1, &code, nullptr};
    static void *const image = __cudaRegisterFatBinary(&wrapper);
    __cudaRegisterFunction(image, kernel, "kernel", "kernel", -1);
    return kernel;
}
} // namespace emulate
