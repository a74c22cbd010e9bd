// What the two products of soft_embedding.cpp share.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "support/thread_pool.h"

namespace dgemma {

struct ProbabilityShape {
    int64_t n_rows, n_vocab, hidden;
};

/// out [C, hidden] = p [C, V] @ embedding [V, hidden] * scale.
struct ProbabilityProduct {
    float* p;
    int64_t n_rows, n_vocab;
    const ggml_tensor* embedding;
    float scale;
    float* out;
    ThreadPool& pool;
    const std::function<bool()>& stopping;

    int64_t hidden() const { return embedding->ne[0]; }
};

/// In F32, whatever the embedding's type (soft_f32.cpp).
void multiply_f32(const ProbabilityProduct& product);

/// What multiply_f32() takes until it returns.
uint64_t f32_scratch(const ProbabilityShape& shape, int n_threads);

/// In 8 bits, but for tokens with at least kHeavy of a row, which are added in F32 (soft_int8.cpp). Overwrites p.
void multiply_int8(const ProbabilityProduct& product);

/// What multiply_int8() takes until it returns, where every group of tokens has mass.
uint64_t int8_scratch(const ProbabilityShape& shape);

constexpr float kHeavy = 1.0f / 64;

/// Says, for each row and each `piece` tokens of the vocabulary, [C, pieces], whether any has mass. Once a row is sure
/// of its token, almost none has.
std::vector<uint8_t> find_mass(const ProbabilityProduct& product, int64_t piece);

/// Columns first … first + n of embedding rows `from` … `from` + count, as F32, `stride` floats a row. first and n are
/// multiples of the type's block.
void unpack_tokens(const ggml_tensor* embedding, int64_t from, int64_t count, int64_t first, int64_t n, float* to,
                   int64_t stride);

}  // namespace dgemma
