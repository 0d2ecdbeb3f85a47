// Checks the prefill kernels against f64, over odd shapes, then times them (`prefill_test bench`; `small` for the sanitizer,
// `layer` for a profiler).
//
// Build: nvcc -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a cuda/tests/prefill_{test,bench}.cu
//        cuda/gemm_{sm90,mma}.cu cuda/flash_prefill{,_sm90}.cu cuda/prefill_rows.cu -o prefill_test
// Bounds: f32 results of exact products: 1e-10 (a sum of k terms in steps of 16, each cut at 2^-24 of it); f16 results: a
// rounding is at most 2^-11 of the value, so 2^-22 = 2.4e-7 (8 values may all be unlucky; of many the mean is 4.5e-8, so 1e-7);
// attention adds f16 probabilities.
#include "tests/prefill_common.cuh"

static const char *const EPILOGUES[] = {"f32", "add", "f16", "silu", "gelu"};

static double gate_of(uint32_t e, double v) {
    return e == KG_GEMM_SILU ? v / (1 + exp(-v)) : 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
}

typedef cudaError_t (*Gemm)(const KgGemm *, cudaStream_t);

static void gemm_case(Gemm run, const char *path, uint32_t m, std::vector<uint32_t> n, uint32_t k, uint32_t e, bool bias, std::vector<uint32_t> tiles, double *worst) {
    const bool glu = e >= KG_GEMM_SILU, half = e >= KG_GEMM_F16;
    uint32_t n_all = 0;
    for (uint32_t v : n) n_all += v;
    const uint32_t columns = glu ? n[0] : n_all, ys = columns + 16, xs = k + 8, ws = k;
    Buffer<__half> x((size_t)m * xs, 1.f), w((size_t)n_all * ws, 1.f / sqrtf((float)k));
    Buffer<float> b(n_all, 1.f), y0((size_t)m * ys, 1.f), y((size_t)m * ys), again((size_t)m * ys);
    Buffer<double> sums((size_t)m * n_all);
    naive_gemm<<<dim3((n_all + 127) / 128, m), 128>>>(x.p, w.p, sums.p, m, n_all, k, xs, ws, n_all);
    KgGemm g = {};
    g.x = x.p, g.y = y.p, g.encode = encoder(), g.m = m, g.k = k, g.n_w = (uint32_t)n.size(), g.x_stride = xs, g.w_stride = ws, g.y_stride = ys;
    g.epilogue = e, g.n_sms = n_sms(), g.alpha = 2.f, g.out_scale = 0.5f;
    uint32_t at = 0;
    for (size_t i = 0; i < n.size(); i++) {
        g.n[i] = n[i], g.w[i] = w.p + (size_t)at * ws, g.bias[i] = bias ? b.p + at : nullptr;
        at += n[i];
    }
    char what[200];
    snprintf(what, sizeof what, "%s %s m %u n %u.. (%zu) k %u", path, EPILOGUES[e], m, n[0], n.size(), k);
    auto once = [&](Buffer<float> &to, uint32_t rows, uint32_t tile) {
        to.poison();
        if (e == KG_GEMM_ADD) CHECK(cudaMemcpy(to.p, y0.p, to.n * 4, cudaMemcpyDeviceToDevice));
        g.y = to.p, g.m = rows, g.tile = tile;
        CHECK(run(&g, 0));
        CHECK(cudaDeviceSynchronize());
        return to.host();
    };
    const std::vector<float> got = once(y, m, 0), old = y0.host(), hb = b.host();
    const std::vector<double> s = sums.host();
    Nmse error;
    bool clean = true;
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < ys; j++) {
            const size_t o = (size_t)i * ys + j;
            const float v = half ? __half2float(((const __half *)got.data())[o]) : got[o];
            if (j >= columns) {
                clean = clean && (e == KG_GEMM_ADD ? v == old[o] : v != v);
                continue;
            }
            auto sum = [&](uint32_t c) { return 2 * s[(size_t)i * n_all + c] + (bias ? hb[c] : 0); };
            double want = glu ? gate_of(e, sum(j)) * sum(n[0] + j) : sum(j);
            if (half) want *= 0.5;
            if (e == KG_GEMM_ADD) want += old[o];
            error.add(v, want);
        }
    expect_nmse(error, half ? 2.4e-7 : 1e-10, what, &worst[half]);
    expect(clean, "columns beside the result are untouched");
    // The tile and the other rows change no bit.
    const size_t size = half ? 2 : 4;
    for (uint32_t tile : tiles) expect(memcmp(once(again, m, tile).data(), got.data(), (size_t)m * ys * size) == 0, "the same bits with another tile");
    for (uint32_t rows : {1u, 17u, 130u})
        if (rows < m) expect(memcmp(once(again, rows, 0).data(), got.data(), (size_t)rows * ys * size) == 0, "the same bits with fewer rows");
}

static void check_gemm(bool small) {
    struct Shape {
        std::vector<uint32_t> n;
        uint32_t k;
    };
    std::vector<Shape> shapes = {{{896, 128, 128}, 896}, {{64}, 896}, {{896}, 4864}, {{1000}, 1032}, {{192, 8}, 72}, {{8}, 8}, {{34, 6}, 24}, {{4864}, 896}};
    std::vector<uint32_t> rows = {1, 17, 100, 513};
    if (small) shapes = {{{200, 8}, 136}}, rows = {130};
    double worst[2] = {}, worst_mma[2] = {};
    for (const Shape &s : shapes)
        for (uint32_t m : rows)
            for (uint32_t e = 0; e <= KG_GEMM_GELU; e++) {
                const std::vector<uint32_t> n = e >= KG_GEMM_SILU ? std::vector<uint32_t>{s.n[0], s.n[0]} : s.n;
                if (encoder()) gemm_case(kgc_gemm_sm90, "wgmma", m, n, s.k, e, (m + e) % 2, {32, 64, 128, 192, 224, 256}, worst);
                gemm_case(kgc_gemm_mma, "mma", m, n, s.k, e, (m + e) % 2, {64, 128}, worst_mma);
            }
    // Sums beyond f16 are clamped.
    Buffer<__half> x(std::vector<__half>(8, __float2half(60000.f))), w(std::vector<__half>(64, __float2half(60000.f)));
    Buffer<__half> y(8);
    KgGemm g = {};
    g.x = x.p, g.w[0] = w.p, g.y = y.p, g.encode = encoder(), g.m = 1, g.k = 8, g.n[0] = 8, g.n_w = 1, g.x_stride = g.w_stride = g.y_stride = 8;
    g.epilogue = KG_GEMM_F16, g.n_sms = n_sms(), g.alpha = 1.f, g.out_scale = 1.f;
    CHECK(kgc_gemm(&g, 0));
    expect(__half2float(y.host()[3]) == 65504.f, "clamped");
    g.k = 12;
    expect(kgc_gemm(&g, 0) == cudaErrorInvalidValue, "k that is no multiple of 8 is refused");
    printf("gemm: worst nmse wgmma f32 %.2g f16 %.2g, mma f32 %.2g f16 %.2g\n", worst[0], worst[1], worst_mma[0], worst_mma[1]);
}

static void check_attention(cudaError_t (*run)(const KgFlash *, cudaStream_t), const char *path, uint32_t widest, bool small) {
    struct Case {
        uint32_t heads, kv, hd, window, start, n;
        float softcap;
    };
    std::vector<Case> cases = {
        {14, 2, 64, 0, 0, 513, 0},    {14, 2, 64, 0, 1000, 100, 0}, {9, 3, 64, 0, 0, 700, 0},   {28, 4, 128, 0, 0, 300, 0},   {8, 1, 128, 0, 77, 17, 0},
        {4, 1, 256, 0, 0, 300, 0},    {4, 1, 256, 512, 0, 1500, 0}, {8, 4, 128, 40, 0, 500, 0}, {8, 4, 64, 100, 700, 333, 0}, {8, 4, 256, 128, 63, 200, 50},
        {4, 4, 80, 0, 5, 130, 0},     {8, 1, 96, 0, 0, 200, 30},    {2, 1, 8, 0, 0, 70, 0},     {2, 1, 512, 0, 3, 129, 0},    {4, 2, 328, 70, 0, 200, 0},
        {14, 2, 64, 0, 1999, 1, 0},   {3, 1, 64, 1, 0, 130, 0},     {8, 2, 192, 0, 64, 64, 0},
    };
    if (small) cases = {{3, 1, 64, 50, 0, 150, 0}, {2, 1, 128, 0, 3, 70, 20}, {2, 1, 256, 0, 0, 70, 0}};
    double worst[2] = {};
    for (const Case &c : cases) {
        if (c.hd > widest) continue;
        char what[200];
        snprintf(what, sizeof what, "attention %s heads %u/%u dim %u window %u start %u n %u cap %g", path, c.heads, c.kv, c.hd, c.window, c.start, c.n, c.softcap);
        const uint32_t row = c.heads * c.hd;
        Buffer<__half> q((size_t)c.n * row, 1.5f), out16((size_t)c.n * row), cut16((size_t)c.n * row);
        Buffer<float> out32((size_t)c.n * row);
        Buffer<double> want((size_t)c.n * row);
        Cache cache(c.start + c.n, c.kv, c.hd);
        KgFlash p = {};
        cache.describe(p, c.hd);
        p.q = q.p, p.n_tokens = c.n, p.start = c.start, p.n_heads = c.heads, p.n_kv = c.kv, p.head_dim = c.hd, p.q_stride = p.out_stride = row;
        p.n_sms = n_sms(), p.window = c.window, p.scale = 1.f / sqrtf((float)c.hd), p.softcap = c.softcap;
        fill_cache<<<512, 256>>>(p, c.start + c.n, 99 + c.hd);
        naive_attention<<<dim3(c.n, c.heads), 128, (c.start + c.n) * 8>>>(p, want.p);
        CHECK(cudaGetLastError());
        p.out = out16.p;
        CHECK(run(&p, 0));
        p.out = out32.p, p.out_f32 = 1;
        CHECK(run(&p, 0));
        CHECK(cudaDeviceSynchronize());
        const std::vector<__half> got16 = out16.host();
        const std::vector<float> got32 = out32.host();
        const std::vector<double> ref = want.host();
        Nmse e16, e32;
        for (size_t i = 0; i < ref.size(); i++) e16.add(__half2float(got16[i]), ref[i]), e32.add(got32[i], ref[i]);
        expect_nmse(e16, 3e-7, what, &worst[0]);
        expect_nmse(e32, 2e-7, what, &worst[1]);
        // The same bits however the chunk is cut.
        strcat(what, ": bits of a cut chunk");
        const uint32_t cuts[] = {17, 1, 100, 64, 3, 128, 200};
        p.out_f32 = 0;
        for (uint32_t done = 0, i = 0; done < c.n; i++) {
            const uint32_t n = cuts[i % 7] < c.n - done ? cuts[i % 7] : c.n - done;
            p.q = q.p + (size_t)done * row, p.out = cut16.p + (size_t)done * row, p.start = c.start + done, p.n_tokens = n;
            CHECK(run(&p, 0));
            done += n;
        }
        CHECK(cudaDeviceSynchronize());
        expect(memcmp(cut16.host().data(), got16.data(), got16.size() * 2) == 0, what);
    }
    printf("attention %s: worst nmse f16 %.2g, f32 %.2g\n", path, worst[0], worst[1]);
}

static void check_norm() {
    double worst[2] = {};
    for (uint32_t dim : {8u, 64u, 896u, 897u, 1152u, 3584u, 4864u, 5121u})
        for (int mode = 0; mode < 3; mode++) {
            const uint32_t m = 17, stride = (dim + 7) / 8 * 8;
            Buffer<float> x((size_t)m * dim, 3.f), d((size_t)m * dim, 2.f), w(dim, 1.f), pw(dim, 1.f), tap((size_t)m * dim);
            Buffer<__half> out((size_t)m * stride);
            const std::vector<float> x0 = x.host(), hd = d.host(), hw = w.host(), hpw = pw.host();
            KgPrefillNorm p = {};
            p.x = x.p, p.delta = mode ? d.p : nullptr, p.post_w = mode == 2 ? pw.p : nullptr, p.w = w.p, p.out = out.p, p.tap = tap.p;
            p.n_tokens = m, p.dim = dim, p.out_stride = stride, p.eps = 1e-6f;
            CHECK(kgc_prefill_norm(&p, 0));
            CHECK(cudaDeviceSynchronize());
            const std::vector<float> x1 = x.host(), ht = tap.host();
            const std::vector<__half> ho = out.host();
            Nmse e16, e32;
            bool zero = true;
            for (uint32_t i = 0; i < m; i++) {
                auto rms = [&](auto at) {
                    double s = 0;
                    for (uint32_t j = 0; j < dim; j++) s += at(j) * at(j);
                    return 1 / sqrt(s / dim + 1e-6);
                };
                const size_t o = (size_t)i * dim;
                const double rd = rms([&](uint32_t j) { return (double)hd[o + j]; });
                auto now = [&](uint32_t j) { return x0[o + j] + (mode == 2 ? hd[o + j] * rd * hpw[j] : mode ? hd[o + j] : 0.); };
                const double r = rms(now);
                for (uint32_t j = 0; j < dim; j++) {
                    e32.add(x1[o + j], now(j)), e32.add(ht[o + j], now(j) * r * hw[j]);
                    e16.add(__half2float(ho[(size_t)i * stride + j]), now(j) * r * hw[j]);
                }
                for (uint32_t j = dim; j < stride; j++) zero = zero && __half2float(ho[(size_t)i * stride + j]) == 0.f;
            }
            expect_nmse(e32, 1e-12, "norm f32", &worst[0]);
            expect_nmse(e16, 1e-7, "norm f16", &worst[1]);
            expect(zero, "padding is zero");
        }
    printf("norm: worst nmse f32 %.2g, f16 %.2g\n", worst[0], worst[1]);
}

static void check_rope() {
    struct Case {
        uint32_t heads, kv, hd, rot, halves, start;
        bool norm, bias;
    };
    const Case cases[] = {{14, 2, 64, 64, 1, 0, false, true},  {9, 3, 64, 64, 0, 1000, false, false}, {4, 1, 256, 256, 1, 130000, true, false},
                          {16, 8, 128, 128, 1, 37, true, true}, {4, 4, 80, 32, 1, 5, false, false},    {2, 1, 512, 512, 0, 7, true, false},
                          {3, 1, 96, 40, 0, 60, true, true},    {2, 2, 8, 2, 1, 0, false, false},
                          {28, 4, 128, 128, 1, 100, false, true},  {6, 2, 128, 128, 0, 3, true, true},          {1, 1, 256, 256, 0, 3, true, false},
                          {80, 8, 64, 64, 1, 11, true, true},      {4, 2, 64, 48, 0, 11, false, true}};
    double worst[2] = {};
    for (const Case &c : cases) {
        const uint32_t m = 100, rows = c.heads + 2 * c.kv, width = rows * c.hd, qs = width + 8;
        Buffer<float> qkv((size_t)m * qs, 1.f), bias(width, 1.f), qn(c.hd, 1.f), kn(c.hd, 1.f), tq((size_t)m * c.heads * c.hd), tk((size_t)m * c.kv * c.hd);
        Buffer<__half> q((size_t)m * c.heads * c.hd);
        std::vector<double> turns(c.rot / 2);
        for (uint32_t i = 0; i < c.rot / 2; i++) turns[i] = pow(1e6, -2.0 * i / c.rot) / (2 * M_PI);
        Buffer<double> dt(turns);
        Cache cache(c.start + m, c.kv, c.hd);
        KgPrefillRope p = {};
        cache.describe(p, c.hd);
        p.qkv = qkv.p, p.bias = c.bias ? bias.p : nullptr, p.q_norm = c.norm ? qn.p : nullptr, p.k_norm = c.norm ? kn.p : nullptr, p.turns = dt.p, p.q = q.p;
        p.tap_q = tq.p, p.tap_k = tk.p, p.n_tokens = m, p.start = c.start, p.n_heads = c.heads, p.n_kv = c.kv, p.head_dim = c.hd, p.n_rot = c.rot;
        p.halves = c.halves, p.qkv_stride = qs, p.q_stride = c.heads * c.hd, p.eps = 1e-6f;
        CHECK(kgc_prefill_rope(&p, 0));
        CHECK(cudaDeviceSynchronize());
        const std::vector<float> in = qkv.host(), hb = bias.host(), hqn = qn.host(), hkn = kn.host(), htq = tq.host(), htk = tk.host();
        const std::vector<__half> hq = q.host(), store = cache.store.host();
        const std::vector<uint64_t> table = cache.table.host();
        Nmse e32, e16;
        std::vector<double> v(c.hd), o(c.hd);
        for (uint32_t i = 0; i < m; i++)
            for (uint32_t h = 0; h < rows; h++) {
                const bool is_q = h < c.heads, is_v = h >= c.heads + c.kv;
                const uint32_t kv = h - c.heads - (is_v ? c.kv : 0), pos = c.start + i;
                double ss = 0;
                for (uint32_t d = 0; d < c.hd; d++) v[d] = (double)in[(size_t)i * qs + h * c.hd + d] + (c.bias ? hb[h * c.hd + d] : 0), ss += v[d] * v[d];
                if (c.norm && !is_v)
                    for (uint32_t d = 0; d < c.hd; d++) v[d] *= (is_q ? hqn : hkn)[d] / sqrt(ss / c.hd + 1e-6);
                o = v;
                for (uint32_t k = 0; k < c.rot / 2 && !is_v; k++) {
                    const uint32_t a = c.halves ? k : 2 * k, b = c.halves ? k + c.rot / 2 : 2 * k + 1;
                    const double angle = 2 * M_PI * fmod(pos * turns[k], 1.0);
                    o[a] = v[a] * cos(angle) - v[b] * sin(angle), o[b] = v[a] * sin(angle) + v[b] * cos(angle);
                }
                const __half *to = is_q ? &hq[((size_t)i * c.heads + h) * c.hd]
                                        : &store[((table[pos / 64] - (uint64_t)(uintptr_t)cache.store.p) / 2) + (is_v ? p.v_offset : 0) + kv * p.head_stride +
                                                 pos % 64 * p.token_stride];
                for (uint32_t d = 0; d < c.hd; d++) {
                    e16.add(__half2float(to[d]), o[d]);
                    if (!is_v) e32.add(is_q ? htq[((size_t)i * c.heads + h) * c.hd + d] : htk[((size_t)i * c.kv + kv) * c.hd + d], o[d]);
                }
            }
        expect_nmse(e32, 1e-12, "rope f32", &worst[0]);
        expect_nmse(e16, 1e-7, "rope f16", &worst[1]);
    }
    printf("rope: worst nmse f32 %.2g, f16 %.2g\n", worst[0], worst[1]);
}

int main(int argc, char **argv) {
    setvbuf(stdout, nullptr, _IOLBF, 0);
    if (argc > 1 && strcmp(argv[1], "layer") == 0) return bench_layer(), 0;
    const bool small = argc > 1 && strcmp(argv[1], "small") == 0;
    check_norm();
    check_rope();
    if (encoder()) check_attention(kgc_flash_sm90, "wgmma", 256, small);
    check_attention(kgc_flash_mma, "mma", 512, small);
    check_gemm(small);
    printf("%d checks, %d failed\n", n_checks, n_failed);
    if (argc > 1 && strcmp(argv[1], "bench") == 0) bench();
    return n_failed != 0;
}
