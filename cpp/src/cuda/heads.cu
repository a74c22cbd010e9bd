#include "cuda/block.cuh"
#include "cuda/heads.h"

namespace dgemma::cuda {
namespace {

constexpr int kPerLane = kMaxHeadDim / kWarp;

__device__ float warp_sum(float value) {
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += shuffle_xor(value, lanes);
    return value;
}

/// One head's values, of which lane i has i, i + 32, ….
class Head {
  public:
    __device__ Head(const float* from, int head_dim) : head_dim_(head_dim) {
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) values_[i] = place(i) < head_dim ? from[place(i)] : 0.0f;
    }

    /// `weight`: null for none.
    __device__ void norm(const float* weight, float eps) {
        float squares = 0;
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) squares += values_[i] * values_[i];
        const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(head_dim_) + eps);
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            values_[i] *= scale;
            if (weight != nullptr && place(i) < head_dim_) values_[i] *= weight[place(i)];
        }
    }

    /// `shown`: kMaxHeadDim floats of shared memory that are the warp's.
    __device__ void rotate(const Turn* turns, float* shown) {
        const int half = head_dim_ / 2;
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            if (place(i) < head_dim_) shown[place(i)] = values_[i];
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            if (place(i) >= head_dim_) continue;
            const bool is_second = place(i) >= half;
            const int pair = is_second ? place(i) - half : place(i);
            const Turn turn = turns[pair];
            const float other = shown[is_second ? pair : pair + half];
            values_[i] = values_[i] * turn.cos + (is_second ? other : -other) * turn.sin;
        }
    }

    __device__ void store(float* to) const {
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            if (place(i) < head_dim_) to[place(i)] = values_[i];
        }
    }

    __device__ void store(__half* to) const {
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
            if (place(i) < head_dim_) to[place(i)] = __float2half(values_[i]);
        }
    }

  private:
    __device__ static int place(int i) { return i * kWarp + static_cast<int>(threadIdx.x % kWarp); }

    int head_dim_;
    float values_[kPerLane];
};

__global__ void __launch_bounds__(kThreads) prepare_heads(HeadRows rows, HeadShape shape, float eps) {
    __shared__ float shown[kWarps][kMaxHeadDim];
    const int warp = static_cast<int>(threadIdx.x) / kWarp, token = static_cast<int>(blockIdx.y);
    const int head = static_cast<int>(blockIdx.x) * kWarps + warp;
    const Turn* turns = rows.turns + static_cast<int64_t>(token) * (shape.head_dim / 2);
    if (head < shape.heads) {
        float* q = rows.q + (static_cast<int64_t>(token) * shape.heads + head) * shape.head_dim;
        Head values(q, shape.head_dim);
        values.norm(rows.q_norm, eps);
        values.rotate(turns, shown[warp]);
        values.store(q);
        return;
    }
    const bool is_key = head < shape.heads + shape.kv_heads;
    const int kv = head - shape.heads - (is_key ? 0 : shape.kv_heads);
    if (kv >= shape.kv_heads) return;
    const int64_t cell = (rows.first_cell + token) % rows.n_cells;
    uint16_t* to = (is_key ? rows.cached_keys : rows.cached_values) + (cell * shape.kv_heads + kv) * shape.head_dim;
    Head values((is_key ? rows.k : rows.v) + (static_cast<int64_t>(token) * shape.kv_heads + kv) * shape.head_dim,
                shape.head_dim);
    values.norm(is_key ? rows.k_norm : nullptr, eps);
    if (is_key) values.rotate(turns, shown[warp]);
    values.store(reinterpret_cast<__half*>(to));
}

}  // namespace

void place_heads(const HeadRows& rows, const HeadShape& shape, float eps, int n, const Stream& stream) {
    const int heads = shape.heads + 2 * shape.kv_heads;
    launch(prepare_heads, grid((heads + kWarps - 1) / kWarps, n), kThreads, stream, rows, shape, eps);
}

}  // namespace dgemma::cuda
