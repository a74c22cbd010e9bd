#include "cpu/norm.h"

#include <cmath>

namespace dgemma {
namespace {

/// In sixteen sums, so that the compiler can use vectors without changing the result.
float sum_of_squares(const float* x, int64_t n) {
    constexpr int64_t kLanes = 16;
    float sums[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * x[i + lane];
    }
    for (; i < n; ++i) sums[i % kLanes] += x[i] * x[i];
    for (int64_t half = kLanes / 2; half > 0; half /= 2) {
        for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    }
    return sums[0];
}

void norm(ggml_tensor* dst, int ith, int nth, void* eps) {
    const ggml_tensor* x = dst->src[0];
    const int64_t k = x->ne[0], rows = ggml_nrows(x);
    const auto* weight = static_cast<const float*>(dst->src[1]->data);
    const auto* from = static_cast<const float*>(x->data);
    auto* to = static_cast<float*>(dst->data);
    for (int64_t row = rows * ith / nth; row < rows * (ith + 1) / nth; ++row) {
        const float mean = sum_of_squares(from + row * k, k) / static_cast<float>(k);
        const float scale = 1.0f / std::sqrt(mean + *static_cast<const float*>(eps));
        for (int64_t i = 0; i < k; ++i) to[row * k + i] = from[row * k + i] * scale * weight[i];
    }
}

}  // namespace

ggml_tensor* build_cpu_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, const float& eps) {
    ggml_tensor* args[] = {ggml_is_contiguous(x) ? x : ggml_cont(ctx, x), weight};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, x->ne[0], x->ne[1], x->ne[2], x->ne[3], args, 2, norm, GGML_N_TASKS_MAX,
                          const_cast<float*>(&eps));
}

}  // namespace dgemma
