#include "cuda/block.cuh"
#include "cuda/layer_rows.h"

namespace dgemma::cuda {
namespace {

// A block makes 16 x 16 logits: sixteen lanes share the columns of four tokens' rows and four experts', so that one
// read of a lane's 8 vectors serves 64 multiplications, and the lanes' sums are joined at the end.
constexpr int kSide = 16, kOwn = 4, kLanes = 16, kVector = 4;
static_assert(kSide / kOwn * (kSide / kOwn) * kLanes == kThreads, "a thread has one part of the columns of one tile");
static_assert(kOwn * kOwn == kLanes, "every lane ends with one logit");

/// Four columns of four rows, of which the last are repeated where there are fewer.
__device__ void load_rows(float4 (&to)[kOwn], const float* const (&rows)[kOwn], int column) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) to[i] = *reinterpret_cast<const float4*>(rows[i] + column);
}

__device__ void point_at_rows(const float* (&rows)[kOwn], const float* matrix, int first, int n, int hidden) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
        const int row = first + i < n ? first + i : n - 1;
        rows[i] = matrix + static_cast<int64_t>(row) * hidden;
    }
}

__device__ float plus_product(float sum, float4 a, float4 b) {
    return sum + a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

/// Sum `lane` of all lanes' together: each step gives one half of the sums to the lane that keeps that half.
__device__ float join_lanes(float (&sums)[kLanes], int lane) {
#pragma unroll
    for (int half = kLanes / 2; half > 0; half /= 2) {
        const bool is_upper = (lane & half) != 0;
#pragma unroll
        for (int i = 0; i < half; ++i) {
            const float kept = is_upper ? sums[i + half] : sums[i], given = is_upper ? sums[i] : sums[i + half];
            sums[i] = kept + shuffle_xor(given, half);
        }
    }
    return sums[0];
}

__global__ void __launch_bounds__(kThreads)
    route_tile(const float* router, const float* rows, float* logits, int n, int experts, int hidden) {
    const int lane = static_cast<int>(threadIdx.x % kLanes), tile = static_cast<int>(threadIdx.x / kLanes);
    const int first_expert = static_cast<int>(blockIdx.x) * kSide + tile % (kSide / kOwn) * kOwn;
    const int first_token = static_cast<int>(blockIdx.y) * kSide + tile / (kSide / kOwn) * kOwn;
    const float *of_tokens[kOwn], *of_experts[kOwn];
    point_at_rows(of_tokens, rows, first_token, n, hidden);
    point_at_rows(of_experts, router, first_expert, experts, hidden);
    float sums[kLanes] = {};
#pragma unroll 2
    for (int column = lane * kVector; column < hidden; column += kLanes * kVector) {
        float4 a[kOwn], b[kOwn];
        load_rows(a, of_tokens, column);
        load_rows(b, of_experts, column);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) sums[i] = plus_product(sums[i], a[i / kOwn], b[i % kOwn]);
    }
    const float logit = join_lanes(sums, lane);
    const int token = first_token + lane / kOwn, expert = first_expert + lane % kOwn;
    if (token < n && expert < experts) logits[static_cast<int64_t>(token) * experts + expert] = logit;
}

}  // namespace

void multiply_router(const float* router, const float* rows, float* logits, int n, int experts, int hidden,
                     const Stream& stream) {
    launch(route_tile, grid((experts + kSide - 1) / kSide, (n + kSide - 1) / kSide), kThreads, stream, router, rows,
           logits, n, experts, hidden);
}

}  // namespace dgemma::cuda
