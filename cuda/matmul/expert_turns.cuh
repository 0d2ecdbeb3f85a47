// Rows of experts' matrices times inputs in shared memory, as a warp goes through them: weights and inputs are those of gemv.cuh.
//
// A lane sums its units in ascending order, lanes are summed by a butterfly: the order depends on the row alone, so that a slot has the same
// bits in any company, in a step, a batch and a prompt. Units are requested one turn ahead, the first by the constructor.
#pragma once
#include "device/expert_unit.cuh"
#include "matmul/gemv.cuh"

// What a warp multiplies, turn by turn: NS rows at once with up to NB inputs, UN units of each row a lane. Place: at(turn, from) says where
// the rows of a turn begin, in units, of mat(s); input(turn) which inputs they are for; end(turn, y) takes the sums, of which y is one, that
// of row lane / (32 / (NS NB)) / NB and input lane / (32 / (NS NB)) % NB.
template <int T, int NS, int UN, int NB, typename Place> struct KgExpertTurns {
    Place place;
    const uint32_t turns, per_row, n;
    const int n_inputs;
    uint32_t turn = 0, unit = 0, from[NS];
    Unit<T> f[NS][UN];

    __device__ __forceinline__ KgExpertTurns(const Place &place, uint32_t turns, uint32_t per_row, uint32_t n, int n_inputs = NB)
        : place(place), turns(turns), per_row(per_row), n(n), n_inputs(n_inputs) {
#pragma unroll
        for (int u = 0; u < UN; u++)
#pragma unroll
            for (int s = 0; s < NS; s++) f[s][u].zero();
        if (turns) place.at(0, from);
#pragma unroll
        for (int u = 0; u < UN; u++) fetch(u);
    }
    // What no lane of the warp needs is not loaded; beyond the last unit the last one is loaded again and not used.
    __device__ __forceinline__ void fetch(int u) {
        const uint32_t first = unit + 32 * u;
        if (turn >= turns || first >= per_row) return;
        const uint32_t at = min(first + (threadIdx.x & 31), per_row - 1);
#pragma unroll
        for (int s = 0; s < NS; s++) kg_load_expert(f[s][u], place.mat(s), from[s] + at);
    }
    __device__ __forceinline__ void run() {
        const uint32_t lane = threadIdx.x & 31, padded = (n + 31) / 32 * 32;
        for (uint32_t now = 0; now < turns; now++) {
            const float *const input = place.input(now);
            float acc[NS][NB];
#pragma unroll
            for (int s = 0; s < NS; s++)
#pragma unroll
                for (int b = 0; b < NB; b++) acc[s][b] = 0.f;
            for (uint32_t first = 0; first < per_row; first += 32 * UN) {
                unit += 32 * UN;
                if (unit >= per_row) {
                    unit = 0;
                    if (++turn < turns) place.at(turn, from);
                }
#pragma unroll
                for (int u = 0; u < UN; u++) {
                    const uint32_t at = first + 32 * u + lane;
                    if (first + 32 * u < per_row)
                        kg_stage_add<T, NS, UN, NB>(acc, f, u, input, padded, min(at, per_row - 1), at < per_row, n_inputs);
                    fetch(u);
                }
            }
            float all[NS * NB];
#pragma unroll
            for (int i = 0; i < NS * NB; i++) all[i] = acc[i / NB][i % NB];
            place.end(now, kg_warp_sums(all));
        }
    }
};

// The input of a slot, in words, and a row of a matrix, in units.
template <int T> __device__ __forceinline__ uint32_t kg_expert_words(const KgExpertProducts &p) {
    return (p.n + 31) / 32 * (kg_is_quant(T) ? 20 : 32);
}
template <int T> __device__ __forceinline__ uint32_t kg_expert_units(const KgExpertProducts &p) {
    return kg_is_quant(T) ? p.n / 32 : p.m[0].stride / 8;
}
