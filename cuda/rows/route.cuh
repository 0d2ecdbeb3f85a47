// Which experts a row goes through, and with what weights, by one warp. As src/model/route.rs has it, of which this is the same
// computation, in f64 too; only the sum of a softmax over all experts has another order, or is left out where it would be divided out again.
//
//   p = softmax(logits), sigmoid(logits) or logits; s = p + select_bias where there is one or there are groups, else logits
//   of groups of experts side by side, those with the largest sums of their two largest s stay
//   ids: the n_used largest s, of equal ones the lowest ids, NaN below all others; ascending
//   weights = p of these, or softmax(logits of these); / max(sum, 1e-20) where renorm; * scale
#pragma once
#include "device/vectors.cuh"

constexpr int KG_ROUTE_OUT = -2147483647 - 1; // what is chosen no more

// Numbers in the order of integers: a NaN below all others, zeros of both signs equal; and back.
__device__ __forceinline__ int kg_flip(int bits) { return bits ^ (int)((uint32_t)(bits >> 31) >> 1); }
__device__ __forceinline__ int kg_key(float s) { return s != s ? KG_ROUTE_OUT + 1 : kg_flip((int)__float_as_uint(s + 0.f)); }
__device__ __forceinline__ float kg_number(int key) {
    return __uint_as_float(key <= KG_ROUTE_OUT + 1 ? 0x7fffffffu : (uint32_t)kg_flip(key));
}

// The first of the largest keys among those of a lane, which are every 32nd; of all lanes, for every lane.
struct KgLeader {
    int best = KG_ROUTE_OUT;
    uint32_t at = 0;
    __device__ __forceinline__ KgLeader(const int *keys, uint32_t n) {
        for (uint32_t i = threadIdx.x & 31; i < n; i += 32)
            if (keys[i] > best) best = keys[i], at = i;
    }
};
__device__ __forceinline__ uint32_t kg_largest(const KgLeader &mine) {
    // Signed numbers in the order of unsigned ones; the least place as the largest of what is left of it.
    const uint32_t key = (uint32_t)mine.best ^ 0x80000000u, best = __reduce_max_sync(0xffffffffu, key);
    return ~__reduce_max_sync(0xffffffffu, key == best ? ~mine.at : 0u);
}
// Takes it, which its lane sees: who is next.
__device__ __forceinline__ void kg_take(KgLeader &mine, int *keys, uint32_t n, uint32_t at) {
    if (at % 32 != threadIdx.x) return;
    keys[at] = KG_ROUTE_OUT;
    mine = KgLeader(keys, n);
}

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
__device__ __forceinline__ void kg_leave_groups(const KgRoute &p, int *keys, int *groups) {
    const uint32_t len = p.n / p.n_groups, lane = threadIdx.x;
    for (uint32_t g = lane; g < p.n_groups; g += 32) groups[g] = kg_sum_of_two(keys + g * len, len);
    __syncwarp();
    KgLeader mine(groups, p.n_groups);
    for (uint32_t i = 0; i < p.n_groups_used; i++) kg_take(mine, groups, p.n_groups, kg_largest(mine)); // no sum is OUT: it stays
    __syncwarp();
    for (uint32_t i = lane; i < p.n; i += 32)
        if (groups[i / len] != KG_ROUTE_OUT) keys[i] = KG_ROUTE_OUT;
    __syncwarp();
}

__device__ __forceinline__ double kg_warp_max64(double v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v = fmax(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}
__device__ __forceinline__ double kg_sigmoid64(double x) { return 1. / (1. + exp(-x)); }

// What the logits become, in f64: of the experts that a lane has, whatever it is asked for.
struct KgScores {
    const float *logits;
    uint32_t score;
    double most, sum;
    __device__ __forceinline__ double at(uint32_t i) const {
        const double l = (double)logits[i];
        return score == KG_SCORE_SOFTMAX ? exp(l - most) / sum : score == KG_SCORE_SIGMOID ? kg_sigmoid64(l) : l;
    }
};

// What a row takes of shared memory.
struct KgRouteRoom {
    float logits[KG_MOST_EXPERTS];
    int keys[KG_MOST_EXPERTS];
    int groups[KG_MOST_EXPERTS]; // and then the chosen, as they were chosen
    double weights[KG_MOST_EXPERTS];
};

// Row `row`, whose logits are in the room, by the block's first warp.
__device__ __forceinline__ void kg_route_row(const KgRoute &p, uint32_t row, KgRouteRoom &room) {
    int *const keys = room.keys, *const groups = room.groups;
    double *const weights = room.weights;
    const uint32_t lane = threadIdx.x, k = p.n_used;
    const bool by_score = p.select_bias || p.n_groups;
    // A factor that all weights have is not needed where they are divided by their sum.
    KgScores scores = {room.logits, p.score, -INFINITY, 1.};
    if (p.score == KG_SCORE_SOFTMAX) {
        bool number = true;
        for (uint32_t i = lane; i < p.n; i += 32) {
            const float l = scores.logits[i];
            scores.most = fmax(scores.most, (double)l), number &= l == l;
        }
        scores.most = kg_warp_max64(scores.most);
        if (by_score || !p.renorm) {
            scores.sum = 0.;
            for (uint32_t i = lane; i < p.n; i += 32) scores.sum += exp((double)scores.logits[i] - scores.most);
            scores.sum = kg_warp_sum(scores.sum);
        } else if (__ballot_sync(0xffffffffu, number) != 0xffffffffu) {
            scores.sum = (double)__uint_as_float(0x7fffffffu);
        }
    }
    for (uint32_t i = lane; i < p.n; i += 32)
        keys[i] = kg_key(by_score ? (float)(scores.at(i) + (p.select_bias ? (double)p.select_bias[i] : 0.)) : scores.logits[i]);
    __syncwarp();
    if (p.n_groups) kg_leave_groups(p, keys, groups);
    KgLeader mine(keys, p.n);
    for (uint32_t i = 0; i < k; i++) {
        const uint32_t best = kg_largest(mine);
        kg_take(mine, keys, p.n, best);
        if (lane == 0) groups[i] = (int)best;
    }
    __syncwarp();
    uint32_t *ids = p.ids + (size_t)row * k;
    for (uint32_t i = lane; i < k; i += 32) {
        uint32_t place = 0;
        for (uint32_t j = 0; j < k; j++) place += groups[j] < groups[i];
        ids[place] = (uint32_t)groups[i];
        if (p.shown) p.shown[(size_t)row * k + place] = (float)groups[i];
        weights[place] = scores.at((uint32_t)groups[i]);
    }
    __syncwarp();
    // Sums over the chosen, each lane for itself, in the order of the ids.
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
        for (uint32_t i = 0; i < k; i++) sum += weights[i];
        by = fmax(sum, 1e-20); // of a NaN, too
    }
    for (uint32_t i = lane; i < k; i += 32) p.weights[(size_t)row * k + i] = (float)(weights[i] * ((double)p.scale / by));
}

static inline bool kg_route_check(const KgRoute *p) {
    bool ok = p->logits && p->ids && p->weights && p->n_rows && p->n && p->n <= KG_MOST_EXPERTS && p->n_used && p->n_used <= p->n;
    ok = ok && p->stride >= p->n && p->score <= KG_SCORE_SOFTMAX_OF_CHOSEN && p->scale > 0.f;
    ok = ok && (!p->n_groups || (p->n % p->n_groups == 0 && p->n_groups_used && p->n_groups_used <= p->n_groups));
    return ok && (!p->n_groups || p->n / p->n_groups * p->n_groups_used >= p->n_used);
}
