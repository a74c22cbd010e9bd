#include "cuda/row_group.cuh"

namespace dgemma::cuda {
namespace {

/// A warp for each group.
__global__ void __launch_bounds__(kThreads) round_groups(const float* x, int64_t n_groups, ProductRows rows) {
    const int64_t group = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (group >= n_groups) return;
    store_group(x[group * kGroupValues + threadIdx.x % kWarp], rows, group);
}

}  // namespace

void round_rows(const float* x, int n, int k, const ProductRows& rows, const Stream& stream) {
    const int64_t n_groups = static_cast<int64_t>(n) * k / kGroupValues;
    launch(round_groups, grid(static_cast<int>((n_groups + kWarps - 1) / kWarps), 1), kThreads, stream, x, n_groups,
           rows);
}

}  // namespace dgemma::cuda
