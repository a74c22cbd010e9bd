#include "session/token_rows.h"

#include <algorithm>
#include <cmath>

namespace dgemma {

void look_up_rows(const std::vector<int32_t>& tokens, const ggml_tensor* embedding, float* rows, ThreadPool& pool) {
    const int64_t hidden = embedding->ne[0];
    const float scale = std::sqrt(static_cast<float>(hidden));
    pool.run(static_cast<int>(tokens.size()), [&](int i) {
        const auto token = static_cast<size_t>(tokens[static_cast<size_t>(i)]);
        const char* from = static_cast<const char*>(embedding->data) + token * embedding->nb[1];
        float* to = rows + i * hidden;
        if (embedding->type == GGML_TYPE_F32) {
            std::copy_n(reinterpret_cast<const float*>(from), hidden, to);
        } else {
            ggml_get_type_traits(embedding->type)->to_float(from, to, hidden);
        }
        for (int64_t column = 0; column < hidden; ++column) to[column] *= scale;
    });
}

}  // namespace dgemma
