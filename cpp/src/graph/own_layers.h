// The layers of a pass, of which ggml computes only how attention mixes values, between its graphs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "dgemma/dgemma.h"
#include "graph/masks.h"

namespace dgemma {

/// A pass over n = shape.n_tokens tokens. F32 in the memory of the card that computes the graphs, without gaps; each
/// token's values lie together.
struct OwnPass {
    PassShape shape;
    int64_t n_past;
    uint16_t *full_mask, *ring_mask;  // [full_keys or ring_keys, padded_queries(n)] F16: to be written
    const float *rows, *soft;         // [hidden, n]: as TokenInputs
    float* q;                         // [hd * heads, n]: the next layer's queries, normed and rotated
    const float* attention;           // [hd * heads, n]: what the last layer's mixed
    float* logits;                    // [vocab, n] before the soft-cap; null in the encoder
    /// Where somebody looks on: to be called with the name of a part (parts.h) once it is computed. May be empty.
    std::function<void(const char* part)> ended;
};

class OwnLayers {
  public:
    virtual ~OwnLayers() = default;
    /// Queues what comes before the first layer's mixing: its queries, and keys and values in the cache. Here as below:
    /// after all that ggml was given, and what ggml is given from now on comes after it.
    virtual void begin(const OwnPass& pass) = 0;
    /// Queues what follows layer i's mixing, up to the next one's, or to the logits; in the encoder up to the last
    /// layer's keys and values.
    virtual void go_on(const OwnPass& pass, size_t layer) = 0;
    virtual void add_memory(MemoryUse& use) const = 0;
};

}  // namespace dgemma
