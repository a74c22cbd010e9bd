#include "cuda/block.cuh"
#include "cuda/experts.h"

namespace dgemma::cuda {
namespace {

constexpr int kPerLane = kMaxExperts / kWarp;

struct Larger {
    __device__ float operator()(float a, float b) const { return b > a ? b : a; }
};

template <typename T, typename Combine>
__device__ T warp_reduce(T value, Combine combine) {
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value = combine(value, shuffle_xor(value, lanes));
    return value;
}

/// Softmax of a token's logits in a warp's registers: lane i has experts i, i + 32, …. What does not exist has
/// probability -infinity, and what is not a number -1, so that it is chosen last and yet an expert.
__device__ void load_probabilities(const float* logits, int n_experts, float (&p)[kPerLane]) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    float most = -INFINITY, total = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
        const int expert = i * kWarp + lane;
        p[i] = expert < n_experts ? logits[expert] : -INFINITY;
        most = Larger()(most, p[i]);
    }
    most = warp_reduce(most, Larger());
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
        p[i] = i * kWarp + lane < n_experts ? expf(p[i] - most) : 0.0f;
        total += p[i];
    }
    total = warp_reduce(total, Sum());
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
        p[i] /= total;
        if (!(p[i] >= 0)) p[i] = -1;
        if (i * kWarp + lane >= n_experts) p[i] = -INFINITY;
    }
}

__global__ void __launch_bounds__(kThreads)
    choose_experts(const float* logits, int n, int n_experts, int used, const float* expert_scale, Routes routes) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    const int token = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
    if (token >= n) return;
    float p[kPerLane];
    load_probabilities(logits + static_cast<int64_t>(token) * n_experts, n_experts, p);
    Found mine{0, 0};  // lane k's: choice k
    float total = 0;
    for (int k = 0; k < used; ++k) {
        Found best{-INFINITY, kMaxExperts};
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) best = Greater()(best, {p[i], i * kWarp + lane});
        best = warp_reduce(best, Greater());
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            if (best.index == i * kWarp + lane) p[i] = -INFINITY;
        }
        if (best.value < 0) best.value = NAN;
        if (lane == k) mine = best;
        total += best.value;
    }
    if (lane >= used) return;
    const int64_t pair = static_cast<int64_t>(token) * used + lane;
    routes.experts[pair] = mine.index;
    routes.weights[pair] = mine.value * expert_scale[mine.index] / total;
}

/// Counts a warp's pairs first … last - 1 by expert into `counts`; visit(pair, number): how many of the expert's there
/// were before it.
template <typename Visit>
__device__ void count_pairs(const int32_t* experts, int first, int last, int* counts, Visit visit) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    for (int start = first; start < last; start += kWarp) {
        const int pair = start + lane, expert = pair < last ? experts[pair] : -1;
        const unsigned same = __match_any_sync(kAllLanes, expert), before = same & ((1u << lane) - 1);
        if (pair < last) visit(pair, counts[expert] + __popc(before));
        __syncwarp();
        if (pair < last && before == 0) counts[expert] += __popc(same);
        __syncwarp();
    }
}

__global__ void __launch_bounds__(kThreads) order_pairs(const int32_t* experts, int n_pairs, PairOrder order) {
    __shared__ int counts[kWarps][kMaxExperts];  // each warp's; then, where its pairs go
    const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
    for (int w = 0; w < kWarps; ++w) counts[w][thread] = 0;
    __syncthreads();
    const int share = (n_pairs + kWarps - 1) / kWarps, first = warp * share;
    const int last = first + share < n_pairs ? first + share : n_pairs;
    count_pairs(experts, first, last, counts[warp], [](int, int) {});
    __syncthreads();
    int n = 0;  // of expert `thread`
    for (int w = 0; w < kWarps; ++w) n += counts[w][thread];
    const int begin = block_prefix(n).through - n, n_tiles = (n + kTilePairs - 1) / kTilePairs;
    int next = begin;
    for (int w = 0; w < kWarps; ++w) {
        const int count = counts[w][thread];
        counts[w][thread] = next;
        next += count;
    }
    const Prefix<int> tiles = block_prefix(n_tiles);
    for (int i = 0; i < n_tiles; ++i) {
        const int left = n - i * kTilePairs;
        order.tiles[tiles.through - n_tiles + i] = {thread, begin + i * kTilePairs,
                                                    left < kTilePairs ? left : kTilePairs};
    }
    if (thread == 0) *order.n_tiles = tiles.total;
    count_pairs(experts, first, last, counts[warp], [&](int pair, int place) { order.pairs[place] = pair; });
}

}  // namespace

void route_tokens(const ExpertShape& shape, int n, const float* logits, const float* expert_scale, const Routes& routes,
                  const Stream& stream) {
    launch(choose_experts, grid((n + kWarps - 1) / kWarps, 1), kThreads, stream, logits, n, shape.experts, shape.used,
           expert_scale, routes);
}

void sort_pairs(const ExpertShape& shape, int n, const int32_t* experts, const PairOrder& order, const Stream& stream) {
    launch(order_pairs, grid(1, 1), kThreads, stream, experts, n * shape.used, order);
}

}  // namespace dgemma::cuda
