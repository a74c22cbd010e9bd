// The self-conditioning signal's input: softmax(previous logits) times the embedding rows, on the CPU.
#pragma once

#include <ggml.h>

#include <functional>
#include <vector>

#include "support/thread_pool.h"

namespace dgemma {

/// out [C, hidden] = softmax(z) [C, V] @ embedding [V, hidden] * sqrt(hidden), in F32 whatever the embedding's type.
/// z, the previous step's logits over its temperature, is overwritten with its softmax. `stopping` is polled between
/// pieces; once it is true the result is unfinished. The result does not depend on the number of threads.
void soft_embedding(float* z, int canvas_length, const ggml_tensor* embedding, float* out, ThreadPool& pool,
                    const std::function<bool()>& stopping);

}  // namespace dgemma
