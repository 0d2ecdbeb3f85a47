// Which experts a row goes through, and with what weights, by one warp. As src/model/route.rs has it, of which this is the same
// computation, in f64 too; only the sum of a softmax over all experts has another order, or is left out where it would be divided out again.
//
//   p = softmax(logits), sigmoid(logits) or logits; s = p + select_bias where there is one or there are groups, else logits
//   of groups of experts side by side, those with the largest sums of their two largest s stay
//   ids: the n_used largest s, of equal ones the lowest ids, NaN below all others; ascending
//   weights = p of these, or softmax(logits of these); / max(sum, 1e-20) where renorm; * scale;  scaled = weights * by_expert
#pragma once
#include "device/vectors.cuh"

constexpr int KG_ROUTE_OUT = -2147483647 - 1; // what is chosen no more

// Numbers in the order of integers: a NaN below all others, zeros of both signs equal; and back.
__device__ __forceinline__ int kg_flip(int bits) { return bits ^ (int)((uint32_t)(bits >> 31) >> 1); }
__device__ __forceinline__ int kg_key(float s) { return s != s ? KG_ROUTE_OUT + 1 : kg_flip((int)__float_as_uint(s + 0.f)); }
__device__ __forceinline__ float kg_number(int key) {
    return __uint_as_float(key <= KG_ROUTE_OUT + 1 ? 0x7fffffffu : (uint32_t)kg_flip(key));
}

// Keys of a lane, every 32nd of all; KG_ROUTE_OUT beyond the last.
template <int N> struct KgKeys {
    int v[N];
    __device__ __forceinline__ KgKeys(const int *keys, uint32_t n) {
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = threadIdx.x % 32 + 32 * j < n ? keys[threadIdx.x % 32 + 32 * j] : KG_ROUTE_OUT;
    }
    // The place of the first of the largest keys of the warp.
    __device__ __forceinline__ uint32_t largest() const {
        int best = v[0];
        uint32_t at = threadIdx.x % 32;
#pragma unroll
        for (int j = 1; j < N; j++)
            if (v[j] > best) best = v[j], at = threadIdx.x % 32 + 32 * j;
        // Signed numbers in the order of unsigned ones; the least place as the largest of what is left of it.
        const uint32_t mine = (uint32_t)best ^ 0x80000000u, most = __reduce_max_sync(0xffffffffu, mine);
        return ~__reduce_max_sync(0xffffffffu, mine == most ? ~at : 0u);
    }
    // Takes out what lies there, if it is this lane's: bit j of what is returned.
    __device__ __forceinline__ uint32_t take(uint32_t at) {
        uint32_t taken = 0;
#pragma unroll
        for (int j = 0; j < N; j++)
            if (at == threadIdx.x % 32 + 32 * j) v[j] = KG_ROUTE_OUT, taken |= 1u << j;
        return taken;
    }
};

// The key of the sum of the two largest; of one that one.
__device__ __forceinline__ int kg_sum_of_two(const int *keys, uint32_t n) {
    int first = keys[0], second = KG_ROUTE_OUT;
    for (uint32_t i = 1; i < n; i++) {
        const int k = keys[i];
        if (k > first) second = first, first = k;
        else if (k > second) second = k;
    }
    return n == 1 ? first : kg_key(kg_number(first) + kg_number(second));
}

// Strikes out the experts of groups that do not stay.
template <int N> __device__ __forceinline__ void kg_leave_groups(const KgRoute &p, int *keys, int *groups) {
    const uint32_t len = p.n / p.n_groups, lane = threadIdx.x % 32;
    for (uint32_t g = lane; g < p.n_groups; g += 32) groups[g] = kg_sum_of_two(keys + g * len, len);
    __syncwarp();
    KgKeys<N> left(groups, p.n_groups);
    for (uint32_t i = 0; i < p.n_groups_used; i++) { // no sum is OUT: it stays
        const uint32_t at = left.largest();
        if (left.take(at)) groups[at] = KG_ROUTE_OUT;
    }
    __syncwarp();
    for (uint32_t i = lane; i < p.n; i += 32)
        if (groups[i / len] != KG_ROUTE_OUT) keys[i] = KG_ROUTE_OUT;
    __syncwarp();
}

__device__ __forceinline__ double kg_sigmoid64(double x) { return 1. / (1. + exp(-x)); }

// What logits become, in f64.
struct KgScores {
    uint32_t score;
    double most, sum;
    __device__ __forceinline__ double of(double l) const {
        return score == KG_SCORE_SOFTMAX ? exp(l - most) / sum : score == KG_SCORE_SIGMOID ? kg_sigmoid64(l) : l;
    }
};

// What a row takes of shared memory.
struct KgRouteRoom {
    float logits[KG_MOST_EXPERTS];
    int keys[KG_MOST_EXPERTS];
    int groups[KG_MOST_EXPERTS];
    double weights[KG_MOST_EXPERTS];
};

// The largest of the logits and, where it is wanted, the sum of their exponentials, which a NaN makes one.
template <int N> __device__ __forceinline__ void kg_route_softmax(const KgRoute &p, const KgRouteRoom &room, bool sums, KgScores &scores) {
    const uint32_t lane = threadIdx.x % 32;
    int most = KG_ROUTE_OUT;
    bool number = true;
#pragma unroll
    for (int j = 0; j < N; j++) {
        const uint32_t i = lane + 32 * j;
        if (i >= p.n) break;
        const float l = room.logits[i];
        most = max(most, kg_key(l)), number &= l == l;
    }
    scores.most = (double)kg_number((int)(__reduce_max_sync(0xffffffffu, (uint32_t)most ^ 0x80000000u) ^ 0x80000000u));
    if (sums) {
        scores.sum = 0.;
        for (uint32_t i = lane; i < p.n; i += 32) scores.sum += exp((double)room.logits[i] - scores.most);
        scores.sum = kg_warp_sum(scores.sum);
    } else if (__ballot_sync(0xffffffffu, number) != 0xffffffffu) {
        scores.sum = (double)__uint_as_float(0x7fffffffu);
    }
}

// The weights of the chosen, whose scores are in the room in the order of their ids: sums over them are made by each lane for itself.
__device__ __forceinline__ void kg_route_weights(const KgRoute &p, uint32_t row, double *weights) {
    const uint32_t lane = threadIdx.x % 32, k = p.n_used;
    double sum = 0., most = -INFINITY;
    if (p.score == KG_SCORE_SOFTMAX_OF_CHOSEN) {
        for (uint32_t i = 0; i < k; i++) most = fmax(most, weights[i]);
        __syncwarp();
        for (uint32_t i = lane; i < k; i += 32) weights[i] = exp(weights[i] - most);
        __syncwarp();
        for (uint32_t i = 0; i < k; i++) sum += weights[i];
        __syncwarp();
        for (uint32_t i = lane; i < k; i += 32) weights[i] /= sum;
        __syncwarp();
    }
    double by = 1.;
    if (p.renorm) {
        sum = 0.;
#pragma unroll 8
        for (uint32_t i = 0; i < k; i++) sum += weights[i];
        by = sum < 1e-20 ? 1e-20 : sum; // NaN stays NaN
    }
    for (uint32_t i = lane; i < k; i += 32) {
        const size_t slot = (size_t)row * k + i;
        const float weight = (float)(weights[i] * ((double)p.scale / by));
        p.weights[slot] = weight;
        if (p.scaled) p.scaled[slot] = __fmul_rn(weight, p.by_expert[p.ids[slot]]);
    }
}

// N: experts of a lane, at least.
template <int N> __device__ __forceinline__ void kg_route_row_of(const KgRoute &p, uint32_t row, KgRouteRoom &room) {
    const uint32_t lane = threadIdx.x % 32, k = p.n_used;
    const bool by_score = p.select_bias || p.n_groups;
    // A factor that all weights have is not needed where they are divided by their sum.
    KgScores scores = {p.score, -INFINITY, 1.};
    if (p.score == KG_SCORE_SOFTMAX) kg_route_softmax<N>(p, room, by_score || !p.renorm, scores);
    for (uint32_t i = lane; i < p.n; i += 32) {
        const float l = room.logits[i];
        room.keys[i] = kg_key(by_score ? (float)(scores.of((double)l) + (p.select_bias ? (double)p.select_bias[i] : 0.)) : l);
    }
    __syncwarp();
    if (p.n_groups) kg_leave_groups<N>(p, room.keys, room.groups);
    KgKeys<N> keys(room.keys, p.n);
    uint32_t chosen = 0; // bit j: of the lane's
    for (uint32_t i = 0; i < k; i++) chosen |= keys.take(keys.largest());
    // Where each goes: behind those chosen that have lower ids.
    uint32_t *ids = p.ids + (size_t)row * k, before = 0;
#pragma unroll
    for (int j = 0; j < N; j++) {
        const uint32_t all = __ballot_sync(0xffffffffu, chosen >> j & 1u), place = before + __popc(all & ((1u << lane) - 1u)), id = lane + 32 * j;
        if (chosen >> j & 1u) {
            ids[place] = id, room.weights[place] = (double)room.logits[id];
            if (p.shown) p.shown[(size_t)row * k + place] = (float)id;
        }
        before += __popc(all);
    }
    __syncwarp();
    for (uint32_t i = lane; i < k; i += 32) room.weights[i] = scores.of(room.weights[i]);
    __syncwarp();
    kg_route_weights(p, row, room.weights);
}

// Row `row`, whose logits are in the room, by one whole warp.
__device__ __forceinline__ void kg_route_row(const KgRoute &p, uint32_t row, KgRouteRoom &room) {
    if (p.n <= 128) kg_route_row_of<4>(p, row, room);
    else kg_route_row_of<KG_MOST_EXPERTS / 32>(p, row, room);
}

static inline bool kg_route_check(const KgRoute *p) {
    bool ok = p->logits && p->ids && p->weights && p->n_rows && p->n && p->n <= KG_MOST_EXPERTS && p->n_used && p->n_used <= p->n;
    ok = ok && !p->by_expert == !p->scaled && p->stride >= p->n && p->score <= KG_SCORE_SOFTMAX_OF_CHOSEN && p->scale > 0.f;
    ok = ok && (!p->n_groups || (p->n % p->n_groups == 0 && p->n_groups_used && p->n_groups_used <= p->n_groups));
    return ok && (!p->n_groups || p->n / p->n_groups * p->n_groups_used >= p->n_used);
}
