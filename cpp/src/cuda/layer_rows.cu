#include "cuda/layer_rows.h"
#include "cuda/row_group.cuh"

namespace dgemma::cuda {
namespace {

constexpr int kFewValues = 12, kMostValues = kMostHidden / kThreads;  // of a row, that a thread has
static_assert(kMostValues * kThreads == kMostHidden, "a block has a whole row");
// Where a kernel's launch bounds name one block, it takes more than 128 registers for wide rows and spills none.

/// A row that a block has in its registers: thread t has columns t, t + kThreads, …, so that a warp's are one group of
/// a ProductRows. The width is a multiple of 32: a warp is inside the row as a whole or not at all.
template <int kValues>
struct Row {
    float values[kValues];
};

/// use(i, column) for each value of this thread.
template <int kValues, typename Use>
__device__ void for_columns(int hidden, Use use) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
        const int column = i * kThreads + static_cast<int>(threadIdx.x);
        if (column < hidden) use(i, column);
    }
}

/// What rms(row) multiplies the row by. Values past the width do not count.
template <int kValues>
__device__ float inverse_rms(const Row<kValues>& row, float eps, int hidden) {
    float sum = 0;
    for_columns<kValues>(hidden, [&](int i, int) { sum += row.values[i] * row.values[i]; });
    return 1.0f / sqrtf(block_reduce(sum, Sum{}) / static_cast<float>(hidden) + eps);
}

template <int kValues>
__device__ Row<kValues> loaded(const float* x, int hidden) {
    Row<kValues> row;
    for_columns<kValues>(hidden, [&](int i, int column) { row.values[i] = x[column]; });
    return row;
}

/// This block's row of the sums.
template <int kValues>
__device__ Row<kValues> loaded(const SharedSums& sums, int hidden) {
    const int64_t n_values = static_cast<int64_t>(gridDim.x) * hidden;
    const float* part = sums.parts + static_cast<int64_t>(blockIdx.x) * hidden;
    auto row = loaded<kValues>(part, hidden);
    for (int share = 1; share < sums.shares; ++share) {
        part += n_values;
        for_columns<kValues>(hidden, [&](int i, int column) { row.values[i] += part[column]; });
    }
    return row;
}

template <int kValues>
__device__ void store(const Row<kValues>& row, float* to, int hidden) {
    for_columns<kValues>(hidden, [&](int i, int column) { to[column] = row.values[i]; });
}

/// This block's row of `rows` = row * inverse * weight.
template <int kValues>
__device__ void store_normed(const Row<kValues>& row, float inverse, const float* weight, const ProductRows& rows,
                             int hidden) {
    const int64_t first = static_cast<int64_t>(blockIdx.x) * (hidden / kGroupValues);
    for_columns<kValues>(hidden, [&](int i, int column) {
        store_group(row.values[i] * inverse * weight[column], rows, first + column / kGroupValues);
    });
}

__device__ int64_t row_of_block(int hidden) { return static_cast<int64_t>(blockIdx.x) * hidden; }

template <int kValues>
__global__ void __launch_bounds__(kThreads)
    norm_row(const float* x, const float* weight, float eps, ProductRows rows, int hidden) {
    const auto row = loaded<kValues>(x + row_of_block(hidden), hidden);
    store_normed(row, inverse_rms(row, eps, hidden), weight, rows, hidden);
}

template <int kValues>
__global__ void __launch_bounds__(kThreads, 1) begin_row(const float* embedded, SharedSums soft, const float* next_norm,
                                                         float eps, float* residual, ProductRows next, int hidden) {
    const int64_t at = row_of_block(hidden);
    auto row = loaded<kValues>(soft, hidden);
    for_columns<kValues>(hidden, [&](int i, int column) { row.values[i] += embedded[at + column]; });
    const float inverse = inverse_rms(row, eps, hidden);
    for_columns<kValues>(hidden, [&](int i, int) { row.values[i] *= inverse; });
    store(row, residual + at, hidden);
    store_normed(row, inverse_rms(row, eps, hidden), next_norm, next, hidden);
}

template <int kValues>
__global__ void __launch_bounds__(kThreads, 1) end_attention_row(AfterAttention a, float eps, int hidden) {
    const int64_t at = row_of_block(hidden);
    const auto attention = loaded<kValues>(a.attention, hidden);
    auto residual = loaded<kValues>(a.x + at, hidden);
    const float of_attention = inverse_rms(attention, eps, hidden);
    for_columns<kValues>(hidden, [&](int i, int column) {
        residual.values[i] += attention.values[i] * of_attention * a.post_norm[column];
    });
    store(residual, a.residual + at, hidden);
    const float inverse = inverse_rms(residual, eps, hidden);
    const float of_router = inverse / sqrtf(static_cast<float>(hidden));
    for_columns<kValues>(hidden, [&](int i, int column) {
        a.router_rows[at + column] = residual.values[i] * of_router * a.router_scale[column];
    });
    store_normed(residual, inverse, a.dense_norm, a.dense, hidden);
    store_normed(residual, inverse, a.expert_norm, a.experts, hidden);
}

/// The experts' rows of this block's token times their weights.
template <int kValues>
__device__ Row<kValues> mixed(const AfterExperts& a, int hidden) {
    Row<kValues> moe = {};
    const int64_t first = static_cast<int64_t>(blockIdx.x) * a.used;
    for (int k = 0; k < a.used; ++k) {
        const float weight = a.weights[first + k];
        const float* product = a.products + (first + k) * hidden;
        for_columns<kValues>(hidden, [&](int i, int column) { moe.values[i] += weight * product[column]; });
    }
    return moe;
}

template <int kValues>
__global__ void __launch_bounds__(kThreads, 1) end_layer_row(AfterExperts a, float eps, int hidden) {
    const int64_t at = row_of_block(hidden);
    auto ffn = loaded<kValues>(a.dense, hidden);
    const auto moe = mixed<kValues>(a, hidden);
    const float of_dense = inverse_rms(ffn, eps, hidden), of_moe = inverse_rms(moe, eps, hidden);
    for_columns<kValues>(hidden, [&](int i, int column) {
        ffn.values[i] =
            ffn.values[i] * of_dense * a.dense_norm[column] + moe.values[i] * of_moe * a.expert_norm[column];
    });
    auto residual = loaded<kValues>(a.residual + at, hidden);
    const float of_ffn = inverse_rms(ffn, eps, hidden);
    for_columns<kValues>(hidden, [&](int i, int column) {
        residual.values[i] = (residual.values[i] + ffn.values[i] * of_ffn * a.ffn_norm[column]) * a.scale;
    });
    store(residual, a.residual + at, hidden);
    store_normed(residual, inverse_rms(residual, eps, hidden), a.next_norm, a.next, hidden);
}

/// A block for each of n rows, by the kernel with registers for few or for many columns.
template <typename... Parameters, typename... Arguments>
void launch_rows(void (*few)(Parameters...), void (*many)(Parameters...), int n, int hidden, const Stream& stream,
                 Arguments... arguments) {
    launch(hidden <= kFewValues * kThreads ? few : many, grid(n, 1), kThreads, stream, arguments..., hidden);
}

}  // namespace

bool fits_rows(int hidden) { return hidden > 0 && hidden % kGroupValues == 0 && hidden <= kMostHidden; }

void norm_rows(const float* x, const float* weight, float eps, const ProductRows& rows, int n, int hidden,
               const Stream& stream) {
    launch_rows(norm_row<kFewValues>, norm_row<kMostValues>, n, hidden, stream, x, weight, eps, rows);
}

void begin_decoder(const float* embedded, const SharedSums& soft, const float* next_norm, float eps, float* residual,
                   const ProductRows& next, int n, int hidden, const Stream& stream) {
    launch_rows(begin_row<kFewValues>, begin_row<kMostValues>, n, hidden, stream, embedded, soft, next_norm, eps,
                residual, next);
}

void end_attention(const AfterAttention& a, float eps, int n, int hidden, const Stream& stream) {
    launch_rows(end_attention_row<kFewValues>, end_attention_row<kMostValues>, n, hidden, stream, a, eps);
}

void end_layer(const AfterExperts& a, float eps, int n, int hidden, const Stream& stream) {
    launch_rows(end_layer_row<kFewValues>, end_layer_row<kMostValues>, n, hidden, stream, a, eps);
}

}  // namespace dgemma::cuda
