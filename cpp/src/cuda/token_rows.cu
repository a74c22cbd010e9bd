#include <cmath>

#include "cuda/block.cuh"
#include "cuda/embedding_types.cuh"
#include "cuda/token_rows.h"

namespace dgemma::cuda {
namespace {

template <typename Reader>
__global__ void __launch_bounds__(kThreads)
    gather_rows(const int32_t* tokens, Embedding embedding, float scale, float* rows) {
    const int column = static_cast<int>(blockIdx.x * kThreads + threadIdx.x), row = static_cast<int>(blockIdx.y);
    if (column >= embedding.hidden) return;
    const float value = Reader::value(embedding.rows + tokens[row] * embedding.row_bytes, column);
    rows[static_cast<int64_t>(row) * embedding.hidden + column] = value * scale;
}

}  // namespace

void embed_tokens(const int32_t* tokens, int n, const Embedding& embedding, float* rows, const Stream& stream) {
    const dim3 blocks = grid((embedding.hidden + kThreads - 1) / kThreads, n);
    const float scale = std::sqrt(static_cast<float>(embedding.hidden));
    with_reader(embedding.type, [&](auto reader) {
        launch(gather_rows<decltype(reader)>, blocks, kThreads, stream, tokens, embedding, scale, rows);
    });
}

}  // namespace dgemma::cuda
