#include "cpu/norm.h"

#include <cmath>

#include "dgemma/dgemma.h"
#include "support/thread_pool.h"

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

/// One thread's share of the rows.
void norm(const RowNorm& rows, int ith, int nth) {
    const int64_t k = rows.n_cols;
    for (int64_t row = rows.n * ith / nth; row < rows.n * (ith + 1) / nth; ++row) {
        const float* from = rows.x + row * k;
        float* to = rows.result + row * k;
        const float scale = 1.0f / std::sqrt(sum_of_squares(from, k) / static_cast<float>(k) + rows.eps);
        for (int64_t i = 0; i < k; ++i) to[i] = from[i] * scale * rows.weight[i];
    }
}

void norm_node(ggml_tensor* dst, int ith, int nth, void* eps) {
    const ggml_tensor* x = dst->src[0];
    const auto values = [](const ggml_tensor* tensor) { return static_cast<float*>(tensor->data); };
    norm({ggml_nrows(x), x->ne[0], values(x), values(dst->src[1]), *static_cast<const float*>(eps), nth, values(dst)},
         ith, nth);
}

}  // namespace

ggml_tensor* build_cpu_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, const float& eps) {
    ggml_tensor* args[] = {ggml_is_contiguous(x) ? x : ggml_cont(ctx, x), weight};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, x->ne[0], x->ne[1], x->ne[2], x->ne[3], args, 2, norm_node,
                          GGML_N_TASKS_MAX, const_cast<float*>(&eps));
}

void norm_rows(const RowNorm& rows) {
    ThreadPool pool(rows.n_threads);
    pool.run(rows.n_threads, [&](int ith) { norm(rows, ith, rows.n_threads); });
}

}  // namespace dgemma
