// A draw at a temperature on the device: the steps of src/sampler, with the same result for the same logits.
//
// One cluster of 8 blocks a sequence, each with an eighth of the logits in shared memory. Everything that is summed is an integer, so no order
// matters; thresholds (the k-th logit, the weight where top-p ends, the last id among equals) are found three bits a pass.
// state: token = the drawn one, position += 1, produced += 1; ring[produced % KG_RING] on the host receives the token, or ~0 where no
// logit is finite or one is +inf.
// Bytes moved: the logits once. Reference: src/sampler. Only for compute capability 9.0 and above.
#include "device/common.cuh"

constexpr uint32_t KG_SAMPLE_BLOCKS = 8, KG_SAMPLE_THREADS = 1024;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define KG_SAMPLE_CLUSTER __cluster_dims__(8, 1, 1)
#else
#define KG_SAMPLE_CLUSTER
#endif
constexpr float KG_ONE = 1099511627776.f; // 2^40

// sampler::exp_neg, step by step.
__device__ __forceinline__ float kg_exp_neg(float x) {
    if (!(x >= -87.f)) return 0.f;
    const float n = rintf(__fmul_rn(x, 1.44269504f));
    float r = __fmaf_rn(n, -0.6933594f, x);
    r = __fmaf_rn(n, 2.1219444e-4f, r);
    float p = 1.3888889e-3f;
    p = __fmaf_rn(p, r, 8.333334e-3f);
    p = __fmaf_rn(p, r, 4.1666666e-2f);
    p = __fmaf_rn(p, r, 1.6666667e-1f);
    p = __fmaf_rn(p, r, 0.5f);
    p = __fmaf_rn(p, r, 1.f);
    p = __fmaf_rn(p, r, 1.f);
    return __fmul_rn(p, __uint_as_float((uint32_t)((int)n + 127) << 23));
}

__device__ __forceinline__ uint64_t kg_random(uint64_t seed, uint64_t counter) {
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        const uint64_t a = (uint64_t)c0 * 0xd2511f53u, b = (uint64_t)c2 * 0xcd9e8d57u;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0, c2 = (uint32_t)(a >> 32) ^ c3 ^ k1, c1 = (uint32_t)b, c3 = (uint32_t)a;
        k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
    }
    return (uint64_t)c1 << 32 | c0;
}

__device__ __forceinline__ uint64_t kg_weight(float e) { return __float2ull_rz(__fmul_rn(e, KG_ONE)); }

struct KgSampleShared {
    uint64_t warps[32][8];
    uint64_t mine[2][8]; // this block's sums, read by the others
    uint64_t all[8];
};

struct KgSample {
    KgSampleShared &s;
    float *v;       // this block's share, [n]
    uint32_t id0, n; // its first id, how many
    uint32_t parity;

    // Sums of N integers over the cluster, to all threads.
    template <int N> __device__ __forceinline__ void sum(uint64_t (&x)[N]) {
        const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const uint64_t t = kg_warp_sum(x[i]);
            if (lane == 0) s.warps[warp][i] = t;
        }
        __syncthreads();
        if (warp < N) {
            const uint64_t t = kg_warp_sum(s.warps[lane][warp]);
            if (lane == 0) s.mine[parity][warp] = t;
        }
        kg_cluster_sync();
        if (warp < N) {
            uint64_t t = lane < KG_SAMPLE_BLOCKS ? kg_cluster_read(&s.mine[parity][warp], lane) : 0;
            t = kg_warp_sum(t);
            if (lane == 0) s.all[warp] = t;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = s.all[i];
        parity ^= 1;
        __syncthreads();
    }

    // f(value, id): a pair of key and weight. The sum of the weights whose key is at least `least`.
    template <typename F> __device__ __forceinline__ uint64_t at_least(uint64_t least, F f) {
        uint64_t x[1] = {0};
        for (uint32_t i = threadIdx.x; i < n; i += KG_SAMPLE_THREADS) {
            const ulonglong2 kw = f(v[i], id0 + i);
            if (kw.x >= least) x[0] += kw.y;
        }
        sum(x);
        return x[0];
    }

    // The largest key of at most `bits` bits at or above which the weights sum to `target` or more; 0 if there is none.
    template <typename F> __device__ __forceinline__ uint64_t search(int bits, uint64_t target, F f) {
        uint64_t found = 0;
        for (int shift = (bits + 2) / 3 * 3 - 3; shift >= 0; shift -= 3) {
            uint64_t x[7] = {0, 0, 0, 0, 0, 0, 0};
            for (uint32_t i = threadIdx.x; i < n; i += KG_SAMPLE_THREADS) {
                const ulonglong2 kw = f(v[i], id0 + i);
#pragma unroll
                for (int d = 0; d < 7; d++)
                    if (kw.x >= (found | (uint64_t)(d + 1) << shift)) x[d] += kw.y;
            }
            sum(x);
            uint64_t digit = 0;
#pragma unroll
            for (int d = 0; d < 7; d++)
                if (x[d] >= target) digit = d + 1;
            found |= digit << shift;
        }
        return found;
    }

    // The first `count` ids, in ascending order, of the values that `equal` names: the last of these.
    template <typename F> __device__ __forceinline__ uint32_t last_id(uint64_t count, F equal) {
        const uint64_t key = search(32, count, [&](float x, uint32_t id) { return make_ulonglong2(equal(x) ? 0xffffffffu - id : 0, equal(x)); });
        return 0xffffffffu - (uint32_t)key;
    }

    // Brings the block's logits; the largest over the cluster, in the order of floats, by the same exchange as sums.
    __device__ __forceinline__ uint32_t load(const float *logits) {
        const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
        uint32_t most = 0;
        for (uint32_t i = threadIdx.x; i < n; i += KG_SAMPLE_THREADS) {
            const float l = logits[i];
            v[i] = l;
            most = max(most, kg_order(l));
        }
        most = __reduce_max_sync(0xffffffffu, most);
        if (lane == 0) s.warps[warp][0] = most;
        __syncthreads();
        if (warp == 0) {
            most = __reduce_max_sync(0xffffffffu, (uint32_t)s.warps[lane][0]);
            if (lane == 0) s.mine[1][0] = most;
        }
        kg_cluster_sync();
        if (warp == 0) {
            most = __reduce_max_sync(0xffffffffu, (uint32_t)kg_cluster_read(&s.mine[1][0], lane % KG_SAMPLE_BLOCKS));
            if (lane == 0) s.all[0] = most;
        }
        __syncthreads();
        most = (uint32_t)s.all[0];
        __syncthreads();
        return most;
    }

    // Logits become weights; those beyond the k largest, and those too far below the top, 0.
    __device__ __forceinline__ void weigh(float top, float temperature, float inverse, uint64_t top_k) {
        const float floor = __fsub_rn(top, __fmul_rn(87.f, temperature));
        // The k largest, or all.
        uint64_t key_k = 0;
        uint32_t id_k = 0xffffffffu;
        auto candidate = [&](float l, uint32_t) { return make_ulonglong2(l >= floor ? kg_order(l) : 0, l >= floor); };
        if (top_k > 0 && top_k < at_least(0, candidate)) {
            key_k = search(32, top_k, candidate);
            const uint64_t above = at_least(key_k + 1, candidate), with = at_least(key_k, candidate);
            if (with > top_k) id_k = last_id(top_k - above, [&](float l) { return l >= floor && kg_order(l) == key_k; });
        }
        for (uint32_t i = threadIdx.x; i < n; i += KG_SAMPLE_THREADS) {
            const float l = v[i];
            const uint32_t key = kg_order(l);
            const bool in = l >= floor && (key > key_k || (key == key_k && id0 + i <= id_k));
            v[i] = in ? kg_exp_neg(__fmul_rn(__fsub_rn(l, top), inverse)) : 0.f;
        }
        __syncthreads();
    }

    // The smallest set with the share keeps its weights.
    __device__ __forceinline__ void keep_top_p(uint64_t share) {
        auto weighed = [&](float e, uint32_t) {
            const uint64_t w = kg_weight(e);
            return make_ulonglong2(w, w);
        };
        const uint64_t total = at_least(0, weighed);
        const uint64_t bound = max((uint64_t)(__umul64hi(total, share) << 32 | (total * share) >> 32), (uint64_t)1);
        const uint64_t w_p = search(41, bound, weighed), above = at_least(w_p + 1, weighed);
        const uint64_t wanted = (bound - above + w_p - 1) / w_p, with = (at_least(w_p, weighed) - above) / w_p;
        uint32_t id_p = 0xffffffffu;
        if (with > wanted) id_p = last_id(wanted, [&](float e) { return kg_weight(e) == w_p; });
        for (uint32_t i = threadIdx.x; i < n; i += KG_SAMPLE_THREADS) {
            const uint64_t w = kg_weight(v[i]);
            if (w < w_p || (w == w_p && id0 + i > id_p)) v[i] = 0.f;
        }
        __syncthreads();
    }

    // The token where the sum of the weights, in ascending order of ids, passes a random share; ~0 where another warp has it.
    __device__ __forceinline__ uint32_t pick(uint32_t rank, uint64_t least, uint64_t seed, uint64_t position) {
        const uint32_t warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
        auto survivor = [&](float e) {
            const uint64_t w = kg_weight(e);
            return w >= least ? w : 0;
        };
        // Sums by warps, whose shares are consecutive ids; then by blocks.
        const uint32_t seg = (n + 32 * 32 - 1) / (32 * 32) * 32, begin = warp * seg, end = min(begin + seg, n);
        uint64_t own = 0;
        for (uint32_t i = begin + lane; i < end; i += 32) own += survivor(v[i]);
        own = kg_warp_sum(own);
        if (lane == 0) s.warps[warp][0] = own;
        __syncthreads();
        if (warp == 0) {
            const uint64_t t = kg_warp_sum(s.warps[lane][0]);
            if (lane == 0) s.mine[parity][0] = t;
        }
        kg_cluster_sync();
        uint64_t before = 0, total = 0;
        for (uint32_t b = 0; b < KG_SAMPLE_BLOCKS; b++) {
            const uint64_t t = kg_cluster_read(&s.mine[parity][0], b);
            if (b < rank) before += t;
            total += t;
        }
        const uint64_t aim = __umul64hi(kg_random(seed, position), total);
        for (uint32_t w = 0; w < warp; w++) before += s.warps[w][0];
        uint32_t token = 0xffffffffu;
        if (own > 0 && aim >= before && aim < before + own) {
            for (uint32_t i0 = begin; i0 < end; i0 += 32) {
                const uint32_t i = i0 + lane;
                const uint64_t w = i < end ? survivor(v[i]) : 0;
                uint64_t run = w;
#pragma unroll
                for (int o = 1; o < 32; o <<= 1) {
                    const uint64_t t = __shfl_up_sync(0xffffffffu, run, o);
                    if (lane >= o) run += t;
                }
                const uint32_t hit = __ballot_sync(0xffffffffu, before + run > aim);
                before += __shfl_sync(0xffffffffu, run, 31);
                if (hit) {
                    token = id0 + i0 + __ffs(hit) - 1;
                    break;
                }
            }
        }
        return token;
    }
};

__global__ void KG_SAMPLE_CLUSTER __launch_bounds__(KG_SAMPLE_THREADS, 1) kg_sample(KgState *state, uint32_t n_vocab, volatile uint32_t *ring) {
#if __CUDA_ARCH__ >= 900
    KG_DYNAMIC_SHARED(float, values);
    KG_SHARED(KgSampleShared, shared);
    kg_launch_dependents();
    kg_wait();
    state += blockIdx.y;
    const uint32_t rank = kg_cluster_rank(), warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const uint32_t per = (n_vocab + KG_SAMPLE_BLOCKS - 1) / KG_SAMPLE_BLOCKS, id0 = min(rank * per, n_vocab);
    KgSample d{shared, values, id0, min(per, n_vocab - id0), 0};
    const float temperature = state->temperature, inverse = state->inverse;
    const uint64_t top_k = state->top_k, share = state->share, least = state->least, seed = state->seed;
    const uint64_t position = (uint64_t)state->position + 1;
    const uint32_t most = d.load(state->logits + id0);
    const float top = most & 0x80000000u ? __uint_as_float(most & 0x7fffffffu) : __uint_as_float(~most);
    const bool finite = most != 0 && fabsf(top) <= 3.402823466e38f;

    uint32_t token = 0xffffffffu;
    if (finite) {
        d.weigh(top, temperature, inverse, top_k);
        if (share > 0) d.keep_top_p(share);
        token = d.pick(rank, least, seed, position);
    } else if (rank == 0 && warp == 0) {
        token = 0xfffffffeu; // nothing to choose from
    }
    // Nobody leaves while another may still read its shared memory.
    kg_cluster_sync();
    if (token == 0xffffffffu || lane != 0) return;
    const bool none = token == 0xfffffffeu;
    state->token = none ? 0 : (int32_t)token;
    state->position += 1;
    const uint32_t at = state->produced;
    state->produced = at + 1;
    ring[at & (KG_RING - 1)] = none ? 0xffffffffu : token;
    __threadfence_system();
#endif
}

// The most logits a draw can take on the current device: a block's share lies in shared memory.
KGC_API uint32_t kgc_sample_most() {
    const size_t each = (kg_shared_most() - sizeof(KgSampleShared)) / 4;
    return KG_SAMPLE_BLOCKS * (uint32_t)(each < 55000 ? each : 55000);
}

// state: [n_seq]; ring: KG_RING tokens of host memory the device can write. Needs compute capability 9.0 or above.
KGC_API cudaError_t kgc_sample(KgState *state, uint32_t n_seq, uint32_t n, uint32_t *ring, cudaStream_t stream) {
    if (n_seq == 0 || n == 0 || n > kgc_sample_most()) return cudaErrorInvalidValue;
    const size_t smem = (size_t)((n + KG_SAMPLE_BLOCKS - 1) / KG_SAMPLE_BLOCKS) * 4;
    KG_NEXT_CLUSTER(KG_SAMPLE_BLOCKS);
    return kg_launch(kg_sample, dim3(KG_SAMPLE_BLOCKS, n_seq), dim3(KG_SAMPLE_THREADS), smem, 0, stream, state, n, (volatile uint32_t *)ring);
}
