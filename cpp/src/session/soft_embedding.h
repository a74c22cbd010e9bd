// The self-conditioning signal's input: softmax(previous logits) times the embedding rows, on the CPU.
#pragma once

#include <ggml.h>

#include <functional>
#include <vector>

#include "support/thread_pool.h"

namespace dgemma {

/// out [C, hidden] = softmax(z) [C, V] @ embedding [V, hidden] * sqrt(hidden), in F32 whatever the embedding's type.
/// z, the previous step's logits over its temperature, is overwritten. Of each row, probabilities below
/// dropped_mass / V are left out, so at most `dropped_mass` of the whole: the result of a row moves by at most that
/// times the largest norm of an embedding row, and a sharp row costs next to nothing.
/// Where something may be left out, the embedding is not in F32 and the processor has a product in 8 bits, tokens with
/// less than 1/64 of a row are multiplied so: for each group of 32 tokens with the largest such probability a and the
/// sum P of them, a value of the result moves by at most sqrt(hidden) A (32 a / 510 + P / 254), A being the group's
/// largest size in that column. On random embeddings that is 0.7 % of a flat row's result, as the rounding of
/// activations elsewhere (docs/engine.md), and less the sharper a row is. Tokens with more are added in F32.
/// dropped_mass 0: all of it, in F32. `stopping` is polled between pieces; once it is true the result is unfinished.
/// The result does not depend on the number of threads.
void soft_embedding(float* z, int canvas_length, const ggml_tensor* embedding, float dropped_mass, float* out,
                    ThreadPool& pool, const std::function<bool()>& stopping);

/// What it takes until it returns.
uint64_t soft_embedding_bytes(int canvas_length, const ggml_tensor* embedding, float dropped_mass, int n_threads);

}  // namespace dgemma
