// Raw logits on the card, and the one way in which all kernels read them: a block takes a chunk of a row.
#pragma once

#include <cstdint>

namespace dgemma::cuda {

constexpr int kChunk = 4096;      // logits of a row that one block reads, 16 a thread
constexpr int kMaxChunks = 1024;  // so a vocabulary has at most 4,194,304 tokens
constexpr int kMaxCanvas = 1024;

/// What the LM head left, [canvas, n_vocab] F32, 16-byte aligned; never written to: what is made of them is worked
/// out anew where it is needed, for writing it down would cost as much traffic as reading. Below, x is a logit after
/// the soft-cap; its probability is in proportion to e^(x / temperature).
struct LogitRows {
    const float* logits;
    int canvas, n_vocab;
    float soft_cap;  // 0: the logits are capped already
    float inverse_temperature;

    int n_chunks() const { return (n_vocab + kChunk - 1) / kChunk; }
};

/// A chunk's part of its row's softmax.
struct ChunkStats {
    float max;       // of x
    int32_t argmax;  // the first of equals
    float mass;      // sum of e^d, d = (x - base) / temperature; base is max, or 0 where that is -infinity
    float weighted;  // sum of e^d d, nats
};

/// A row's softmax and its draw.
struct RowState {
    double entropy;  // nats; NaN where the logits are not numbers
    float max;       // of x
    float inverse;   // 1 / sum of e^((x - max) / temperature)
    int32_t argmax, sampled;
};

}  // namespace dgemma::cuda
