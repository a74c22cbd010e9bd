// What tokens are to the network: their rows of the embedding.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <vector>

#include "support/thread_pool.h"

namespace dgemma {

/// rows [n, hidden] = the tokens' rows of the embedding [vocab, hidden], which lies with the host, times sqrt(hidden),
/// in F32 whatever the embedding's type. The tokens must be in the vocabulary.
void look_up_rows(const std::vector<int32_t>& tokens, const ggml_tensor* embedding, float* rows, ThreadPool& pool);

}  // namespace dgemma
