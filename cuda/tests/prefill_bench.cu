// Times the prefill kernels: products over the shapes and tiles, attention, the rows' stages, and a whole model's layers.
//
// Times are CUDA events around repeated launches after a warm-up; weights rotate through copies that exceed the L2 cache.
#include "tests/prefill_common.cuh"
#include <functional>

static float time_us(int repeat, const std::function<void(int)> &launch, int rounds = 1) {
    cudaEvent_t a, b;
    CHECK(cudaEventCreate(&a));
    CHECK(cudaEventCreate(&b));
    launch(0), launch(1);
    CHECK(cudaDeviceSynchronize());
    float sum = 0.f;
    for (int round = 0; round < rounds; round++) {
        CHECK(cudaEventRecord(a));
        for (int i = 0; i < repeat; i++) launch(i);
        CHECK(cudaEventRecord(b));
        CHECK(cudaEventSynchronize(b));
        float ms;
        CHECK(cudaEventElapsedTime(&ms, a, b));
        sum += ms * 1000.f / repeat / rounds;
    }
    CHECK(cudaEventDestroy(a));
    CHECK(cudaEventDestroy(b));
    return sum;
}

static void bench_gemm(const Buffer<__half> &x, const Buffer<__half> &w, Buffer<float> &y) {
    struct Shape {
        const char *name;
        uint32_t m, n[3], n_w, k, e;
    };
    const Shape shapes[] = {
        {"7B gate up silu", 2048, {18944, 18944}, 2, 3584, KG_GEMM_SILU}, {"7B down add", 2048, {3584}, 1, 18944, KG_GEMM_ADD},
        {"7B up f32", 2048, {18944}, 1, 3584, KG_GEMM_F32},               {"7B qkv f32", 2048, {3584, 512, 512}, 3, 3584, KG_GEMM_F32},
        {"7B o add", 2048, {3584}, 1, 3584, KG_GEMM_ADD},                 {"7B gate up silu", 512, {18944, 18944}, 2, 3584, KG_GEMM_SILU},
        {"7B down add", 512, {3584}, 1, 18944, KG_GEMM_ADD},              {"7B down add", 17, {3584}, 1, 18944, KG_GEMM_ADD},
        {"0.5B gate up silu", 2048, {4864, 4864}, 2, 896, KG_GEMM_SILU},  {"0.5B down add", 2048, {896}, 1, 4864, KG_GEMM_ADD},
        {"0.5B qkv f32", 2048, {896, 128, 128}, 3, 896, KG_GEMM_F32},     {"0.5B o add", 2048, {896}, 1, 896, KG_GEMM_ADD},
        {"135M gate up silu", 2048, {1536, 1536}, 2, 576, KG_GEMM_SILU},  {"135M down add", 2048, {576}, 1, 1536, KG_GEMM_ADD},
        {"0.5B down add", 17, {896}, 1, 4864, KG_GEMM_ADD},               {"0.5B head f32", 64, {151936}, 1, 896, KG_GEMM_F32},
    };
    printf("\nproduct, us (TFLOP/s) by tile columns; auto is the library's choice\n%-18s %5s %12s", "", "m", "auto");
    for (uint32_t t : {32, 64, 128, 192, 224, 256}) printf(" %12u", t);
    printf(" %12s\n", "mma.sync");
    for (const Shape &s : shapes) {
        KgGemm g = {};
        uint64_t size = 0;
        for (uint32_t i = 0; i < s.n_w; i++) size += (uint64_t)s.n[i] * s.k;
        const uint64_t copies = w.n / size;
        g.x = x.p, g.y = y.p, g.encode = encoder(), g.m = s.m, g.k = s.k, g.n_w = s.n_w, g.x_stride = g.w_stride = s.k;
        g.epilogue = s.e, g.n_sms = n_sms(), g.alpha = 1.f, g.out_scale = 1.f;
        for (uint32_t i = 0; i < s.n_w; i++) g.n[i] = s.n[i], g.y_stride += s.e < KG_GEMM_SILU || !i ? s.n[i] : 0;
        const double flop = 2. * s.m * size;
        printf("%-18s %5u", s.name, s.m);
        // In turn, each round beginning with another, so that all meet the same clocks; means over the rounds.
        const int tiles[] = {0, 32, 64, 128, 192, 224, 256, -1}, n_tiles = 8, rounds = 8;
        float us[n_tiles] = {};
        for (int r = 0; r < rounds; r++)
            for (int i = 0; i < n_tiles; i++) {
                const int which = (r * 3 + i) % n_tiles, t = tiles[which];
                if (t >= 0 && !g.encode) continue;
                g.tile = t < 0 ? 0 : t;
                us[which] += time_us(flop > 1e11 ? 3 : 10, [&](int i) {
                    const __half *at = w.p + i % copies * size;
                    for (uint32_t j = 0; j < s.n_w; j++) g.w[j] = at, at += (uint64_t)s.n[j] * s.k;
                    CHECK(t < 0 ? kgc_gemm_mma(&g, 0) : kgc_gemm_sm90(&g, 0));
                }) / rounds;
            }
        for (float v : us) printf(" %7.1f (%3.0f)", v, flop / v * 1e-6);
        printf("\n");
    }
}

static KgFlash flash_of(const Cache &cache, const __half *q, __half *out, uint32_t n, uint32_t start, uint32_t heads, uint32_t kv, uint32_t hd) {
    KgFlash p = {};
    cache.describe(p, hd);
    p.q = q, p.out = out, p.n_tokens = n, p.start = start, p.n_heads = heads, p.n_kv = kv, p.head_dim = hd, p.q_stride = p.out_stride = heads * hd;
    p.n_sms = n_sms(), p.wgmma = encoder() != nullptr, p.scale = 1.f / sqrtf((float)hd);
    return p;
}

static void bench_attention(const Buffer<__half> &q, Buffer<__half> &out) {
    struct Shape {
        const char *name;
        uint32_t heads, kv, hd, n, start, window;
    };
    const Shape shapes[] = {{"0.5B", 14, 2, 64, 2048, 0, 0},   {"7B", 28, 4, 128, 2048, 0, 0},      {"1B", 32, 8, 64, 2048, 0, 0},       {"gemma 270M", 4, 1, 256, 2048, 0, 0},
                            {"gemma window", 4, 1, 256, 2048, 0, 512}, {"0.5B deep", 14, 2, 64, 2048, 14336, 0}, {"7B deep", 28, 4, 128, 2048, 14336, 0},
                            {"0.5B short", 14, 2, 64, 17, 2031, 0}, {"7B 512", 28, 4, 128, 512, 0, 0}};
    printf("\nattention\n");
    for (const Shape &s : shapes) {
        Cache cache(s.start + s.n, s.kv, s.hd);
        KgFlash p = flash_of(cache, q.p, out.p, s.n, s.start, s.heads, s.kv, s.hd);
        p.window = s.window;
        fill_cache<<<512, 256>>>(p, s.start + s.n, 5);
        const float mma = time_us(10, [&](int) { CHECK(kgc_flash_mma(&p, 0)); }), us = time_us(10, [&](int) { CHECK(kgc_flash_prefill(&p, 0)); });
        double pairs = 0;
        for (uint32_t i = 0; i < s.n; i++) pairs += fmin(s.start + i + 1., s.window ? s.window : 1e9);
        const double flop = 4e-6 * pairs * s.hd * s.heads;
        printf("%-14s %2u/%u heads of %3u, %4u tokens at %5u, window %3u: %8.1f us (%3.0f TFLOP/s); mma.sync %8.1f us (%3.0f)\n", s.name, s.heads, s.kv,
               s.hd, s.n, s.start, s.window, us, flop / us, mma, flop / mma);
    }
}

// The layers of a model as the backend runs them, on one stream.
static void bench_layers(const char *name, uint32_t m, uint32_t layers, uint32_t d, uint32_t heads, uint32_t kv, uint32_t hd, uint32_t ff, uint32_t pdl) {
    const uint32_t qkv_n = (heads + 2 * kv) * hd;
    const size_t per_layer = (size_t)d * (qkv_n + heads * hd + 3 * (size_t)ff);
    Buffer<__half> w(per_layer * layers, 0.02f), h((size_t)m * d), q((size_t)m * heads * hd), mix((size_t)m * heads * hd), act((size_t)m * ff);
    Buffer<float> x((size_t)m * d, 1.f), qkv((size_t)m * qkv_n), norm(d, 1.f), bias(qkv_n, 1.f);
    Buffer<double> turns(std::vector<double>(hd / 2, 0.01));
    Cache cache(m, kv, hd);
    void *encode = encoder();
    const uint32_t sms = n_sms();
    auto product = [&](const __half *in, uint32_t k, std::initializer_list<uint32_t> n, const __half *&from, void *y, uint32_t ys, uint32_t e, const float *b) {
        KgGemm g = {};
        g.x = in, g.y = y, g.encode = encode, g.m = m, g.k = k, g.x_stride = g.w_stride = k, g.y_stride = ys, g.epilogue = e, g.n_sms = sms;
        g.alpha = g.out_scale = 1.f, g.pdl = pdl;
        for (uint32_t v : n) g.n[g.n_w] = v, g.bias[g.n_w] = b, g.w[g.n_w++] = from, from += (size_t)v * k, b = b ? b + v : b;
        CHECK(kgc_gemm(&g, 0));
    };
    auto all = [&](int) {
        for (uint32_t l = 0; l < layers; l++) {
            const __half *at = w.p + l * per_layer;
            KgPrefillNorm n = {};
            n.x = x.p, n.w = norm.p, n.out = h.p, n.n_tokens = m, n.dim = n.out_stride = d, n.eps = 1e-6f, n.pdl = pdl;
            CHECK(kgc_prefill_norm(&n, 0));
            product(h.p, d, {heads * hd, kv * hd, kv * hd}, at, qkv.p, qkv_n, KG_GEMM_F32, bias.p);
            KgPrefillRope r = {};
            cache.describe(r, hd);
            r.qkv = qkv.p, r.turns = turns.p, r.q = q.p, r.n_tokens = m, r.n_heads = heads, r.n_kv = kv, r.head_dim = r.n_rot = hd, r.halves = 1;
            r.qkv_stride = qkv_n, r.q_stride = heads * hd, r.eps = 1e-6f, r.pdl = pdl;
            CHECK(kgc_prefill_rope(&r, 0));
            KgFlash f = flash_of(cache, q.p, mix.p, m, 0, heads, kv, hd);
            f.pdl = pdl;
            CHECK(kgc_flash_prefill(&f, 0));
            product(mix.p, heads * hd, {d}, at, x.p, d, KG_GEMM_ADD, nullptr);
            CHECK(kgc_prefill_norm(&n, 0));
            product(h.p, d, {ff, ff}, at, act.p, ff, KG_GEMM_SILU, nullptr);
            product(act.p, ff, {d}, at, x.p, d, KG_GEMM_ADD, nullptr);
        }
    };
    const float us = time_us(3, all, 3);
    printf("%-14s %u layers, %4u tokens, dependent launch %u: %9.0f us, %7.0f tok/s\n", name, layers, m, pdl, us, m * 1e6 / us);
    if (pdl) return;
    KgPrefillNorm n = {};
    n.x = x.p, n.w = norm.p, n.out = h.p, n.n_tokens = m, n.dim = n.out_stride = d, n.eps = 1e-6f;
    KgPrefillRope r = {};
    cache.describe(r, hd);
    r.qkv = qkv.p, r.turns = turns.p, r.q = q.p, r.n_tokens = m, r.n_heads = heads, r.n_kv = kv, r.head_dim = r.n_rot = hd, r.halves = 1;
    r.qkv_stride = qkv_n, r.q_stride = heads * hd, r.eps = 1e-6f;
    printf("%-14s norm %.1f us, rope %.1f us\n", name, time_us(20, [&](int) { CHECK(kgc_prefill_norm(&n, 0)); }),
           time_us(20, [&](int) { CHECK(kgc_prefill_rope(&r, 0)); }));
}

void bench() {
    {
        Buffer<__half> x((size_t)2048 * 18944, 1.f), w((size_t)4 * 18944 * 3584, 0.02f), out((size_t)2048 * 3584);
        Buffer<float> y((size_t)2048 * 18944, 1.f);
        bench_gemm(x, w, y);
        bench_attention(x, out);
    }
    printf("\nlayers in sequence (no embedding, no output matrix)\n");
    for (uint32_t pdl : {0u, 1u}) {
        bench_layers("Qwen2.5-0.5B", 2048, 24, 896, 14, 2, 64, 4864, pdl);
        bench_layers("SmolLM2-135M", 2048, 30, 576, 9, 3, 64, 1536, pdl);
        bench_layers("Llama-3.2-1B", 2048, 16, 2048, 32, 8, 64, 8192, pdl);
        bench_layers("Qwen2.5-7B", 2048, 28, 3584, 28, 4, 128, 18944, pdl);
    }
    bench_layers("Qwen2.5-0.5B", 512, 24, 896, 14, 2, 64, 4864, 1);
    bench_layers("Qwen2.5-7B", 512, 28, 3584, 28, 4, 128, 18944, 1);
    bench_layers("Qwen2.5-7B", 17, 28, 3584, 28, 4, 128, 18944, 1);
}

void bench_layer() {
    bench_layers("Qwen2.5-0.5B", 2048, 1, 896, 14, 2, 64, 4864, 0);
    bench_layers("Qwen2.5-7B", 2048, 1, 3584, 28, 4, 128, 18944, 0);
}
