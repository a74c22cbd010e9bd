#include "session/soft_embedding.h"

#include <cmath>

#include "cpu/group_product.h"
#include "denoise/rows.h"
#include "dgemma/dgemma.h"
#include "model/devices.h"
#include "session/soft_product.h"
#include "support/types.h"

namespace dgemma {
namespace {

bool is_rounded(const ggml_tensor* embedding, float dropped_mass) {
    return dropped_mass > 0 && embedding->type != GGML_TYPE_F32 && has_group_product();
}

}  // namespace

void soft_embedding(float* z, int canvas_length, const ggml_tensor* embedding, float dropped_mass, float* out,
                    ThreadPool& pool, const std::function<bool()>& stopping) {
    const int64_t hidden = embedding->ne[0], n_vocab = embedding->ne[1];
    const float cut = dropped_mass / static_cast<float>(n_vocab);
    pool.run(canvas_length, [&](int row) {
        if (stopping()) return;
        float* p = z + row * n_vocab;
        softmax_row(p, n_vocab);
        for (int64_t i = 0; i < n_vocab; ++i) p[i] = p[i] < cut ? 0.0f : p[i];
    });
    const float scale = std::sqrt(static_cast<float>(hidden));
    const ProbabilityProduct product{z, canvas_length, n_vocab, embedding, scale, out, pool, stopping};
    is_rounded(embedding, dropped_mass) ? multiply_int8(product) : multiply_f32(product);
}

uint64_t soft_embedding_bytes(int canvas_length, const ggml_tensor* embedding, float dropped_mass, int n_threads) {
    const ProbabilityShape shape{canvas_length, embedding->ne[1], embedding->ne[0]};
    return is_rounded(embedding, dropped_mass) ? int8_scratch(shape) : f32_scratch(shape, n_threads);
}

void multiply_soft(const SoftProduct& product) {
    const ContextPtr context = make_tensor_context(1);
    ggml_tensor* embedding =
        ggml_new_tensor_2d(context.get(), weight_type(product.type), product.n_cols, product.n_rows);
    embedding->data = const_cast<void*>(product.embedding);
    std::vector<float> z(product.z, product.z + product.n * product.n_rows);
    ThreadPool pool(product.n_threads);
    soft_embedding(z.data(), product.n, embedding, product.dropped_mass, product.result, pool, [] { return false; });
}

}  // namespace dgemma
