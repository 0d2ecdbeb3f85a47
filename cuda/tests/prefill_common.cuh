// Device buffers, random data and naive f64 references for the prefill kernels' tests and timings.
#pragma once
#include "attention/flash_prefill.cuh"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        cudaError_t check_ = (call);                                                                                   \
        if (check_ != cudaSuccess) {                                                                                   \
            printf("FAILED %s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(check_));                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

// Normal numbers from a counter: fresh for every seed, the same on every run.
__device__ inline float normal_at(uint64_t seed, uint64_t i) {
    uint64_t z = (seed << 40) + i * 0x9e3779b97f4a7c15ull + 0x1234567;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull, z = (z ^ (z >> 27)) * 0x94d049bb133111ebull, z ^= z >> 31;
    const float u = ((uint32_t)z + 1.f) * 2.3283064e-10f, v = (uint32_t)(z >> 32) * 2.3283064e-10f;
    return sqrtf(-2.f * logf(u)) * cospif(2.f * v);
}
template <typename T> static __global__ void fill_normal(T *p, size_t n, uint64_t seed, float scale) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
        p[i] = (T)(normal_at(seed, i) * scale);
}

template <typename T> struct Buffer {
    T *p = nullptr;
    size_t n = 0;
    explicit Buffer(size_t n) : n(n) {
        CHECK(cudaMalloc(&p, n * sizeof(T)));
        CHECK(cudaMemset(p, 0xff, n * sizeof(T))); // NaN in every float type
    }
    Buffer(size_t n, float scale) : Buffer(n) {
        static uint64_t seed = 1;
        fill_normal<T><<<1024, 256>>>(p, n, seed++, scale);
        CHECK(cudaGetLastError());
    }
    explicit Buffer(const std::vector<T> &v) : Buffer(v.size()) { CHECK(cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice)); }
    Buffer(const Buffer &) = delete;
    ~Buffer() { cudaFree(p); }
    void poison() { CHECK(cudaMemset(p, 0xff, n * sizeof(T))); }
    std::vector<T> host() const {
        std::vector<T> v(n);
        CHECK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return v;
    }
};

static int n_checks = 0, n_failed = 0;
static inline void expect(bool ok, const char *what) {
    n_checks++;
    if (!ok) n_failed++, printf("FAILED %s\n", what);
}

// Normalized mean squared error; NaN fails.
struct Nmse {
    double error = 0, power = 0;
    void add(double got, double want) { error += (got - want) * (got - want), power += want * want; }
    double value() const { return error / power; }
};
static inline void expect_nmse(const Nmse &e, double bound, const char *what, double *worst) {
    n_checks++;
    if (!(e.value() <= bound)) n_failed++, printf("FAILED %s: nmse %.3g, bound %.3g\n", what, e.value(), bound);
    if (!(e.value() <= *worst)) *worst = e.value();
}

// out[i, j] = sum_l x[i, l] w[j, l], f64.
static __global__ void naive_gemm(const __half *x, const __half *w, double *out, uint32_t m, uint32_t n, uint32_t k, uint32_t xs, uint32_t ws, uint32_t os) {
    const uint32_t j = blockIdx.x * blockDim.x + threadIdx.x, i = blockIdx.y;
    if (j >= n) return;
    double s = 0;
    for (uint32_t l = 0; l < k; l++) s += (double)__half2float(x[(size_t)i * xs + l]) * (double)__half2float(w[(size_t)j * ws + l]);
    out[(size_t)i * os + j] = s;
}

// One block a token and head; f64, two passes over the keys. out [n_tokens, n_heads, head_dim] f64.
static __global__ void naive_attention(KgFlash p, double *out) {
    extern __shared__ double scores[];
    const uint32_t token = blockIdx.x, head = blockIdx.y, kv = head / (p.n_heads / p.n_kv), pos = p.start + token, hd = p.head_dim;
    const uint32_t from = p.window && pos + 1 > p.window ? pos + 1 - p.window : 0;
    const __half *q = (const __half *)p.q + (size_t)token * p.q_stride + head * hd;
    auto row = [&](uint32_t t, uint64_t offset) { return (const __half *)p.pages[t / 64] + offset + kv * p.head_stride + t % 64 * p.token_stride; };
    for (uint32_t t = from + threadIdx.x; t <= pos; t += blockDim.x) {
        double s = 0;
        for (uint32_t d = 0; d < hd; d++) s += (double)__half2float(q[d]) * (double)__half2float(row(t, p.k_offset)[d]);
        s *= p.scale;
        scores[t - from] = p.softcap > 0 ? p.softcap * tanh(s / p.softcap) : s;
    }
    __syncthreads();
    double top = -1e300, sum = 0;
    for (uint32_t t = from; t <= pos; t++) top = fmax(top, scores[t - from]);
    for (uint32_t t = from; t <= pos; t++) sum += exp(scores[t - from] - top);
    for (uint32_t d = threadIdx.x; d < hd; d += blockDim.x) {
        double o = 0;
        for (uint32_t t = from; t <= pos; t++) o += exp(scores[t - from] - top) * (double)__half2float(row(t, p.v_offset)[d]);
        out[((size_t)token * p.n_heads + head) * hd + d] = o / sum;
    }
}

// A sequence's cache of one layer in shuffled pages [n_kv][k, v][64][head_dim], NaN where nothing was written.
struct Cache {
    uint32_t n_pages;
    uint64_t page;
    Buffer<__half> store;
    Buffer<uint64_t> table;
    Cache(uint32_t n_tokens, uint32_t n_kv, uint32_t hd)
        : n_pages((n_tokens + 63) / 64), page((uint64_t)n_kv * 2 * 64 * hd), store(page * n_pages), table(addresses(store.p, n_pages, page)) {}
    static std::vector<uint64_t> addresses(const __half *p, uint32_t n, uint64_t page) {
        std::vector<uint64_t> v(n);
        uint32_t step = 7;
        while (n % step == 0) step += 2;
        for (uint32_t i = 0; i < n; i++) v[i] = (uint64_t)(uintptr_t)(p + (uint64_t)i * step % n * page);
        return v;
    }
    template <typename P> void describe(P &p, uint32_t hd) const {
        p.pages = table.p, p.k_offset = 0, p.v_offset = 64ull * hd, p.head_stride = 128ull * hd, p.token_stride = hd;
    }
};
// Rows of positions 0 .. n of K and V.
static __global__ void fill_cache(KgFlash p, uint32_t n, uint64_t seed) {
    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (uint64_t)n * p.n_kv * p.head_dim; i += (uint64_t)gridDim.x * blockDim.x) {
        const uint32_t d = i % p.head_dim, kv = i / p.head_dim % p.n_kv, t = i / p.head_dim / p.n_kv;
        __half *at = (__half *)p.pages[t / 64] + kv * p.head_stride + t % 64 * p.token_stride + d;
        at[p.k_offset] = __float2half(normal_at(seed, 2 * i)), at[p.v_offset] = __float2half(normal_at(seed, 2 * i + 1));
    }
}

static inline uint32_t n_sms() {
    int n = 0;
    CHECK(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0));
    return (uint32_t)n;
}
// Null where the device has no wgmma.
static inline void *encoder() {
    void *e = nullptr;
    const cudaError_t error = kgc_gemm_encoder(&e);
    if (error != cudaErrorNotSupported) CHECK(error);
    return e;
}
void bench();
void bench_layer(); // one layer of two models
