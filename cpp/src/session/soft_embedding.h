// The self-conditioning signal's input: softmax(previous logits) times the embedding rows, on the CPU.
#pragma once

#include <ggml.h>

#include <functional>
#include <vector>

#include "support/thread_pool.h"

namespace dgemma {

/// out [C, hidden] = softmax(z) [C, V] @ embedding [V, hidden] * sqrt(hidden), in F32 whatever the embedding's type.
/// z, the previous step's logits over its temperature, is overwritten with its softmax. Of each row, probabilities
/// below dropped_mass / V are left out, so at most `dropped_mass` of the whole: the result of a row moves by at most
/// that times the largest norm of an embedding row, and a sharp row costs next to nothing. Where something may be left
/// out and the embedding is not in F32, the factors may be rounded to BF16 too (cpu/bf16_product.h), which moves it by
/// 2^-7 of the sum of their products' sizes at most.
/// 0: all of it, in F32. `stopping` is polled between pieces; once it is true the result is unfinished. The result does
/// not depend on the number of threads.
void soft_embedding(float* z, int canvas_length, const ggml_tensor* embedding, float dropped_mass, float* out,
                    ThreadPool& pool, const std::function<bool()>& stopping);

}  // namespace dgemma
