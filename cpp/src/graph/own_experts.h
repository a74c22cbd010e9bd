// A layer's experts, computed by somebody else than ggml between two of its graphs.
#pragma once

#include <ggml.h>

#include <cstddef>

#include "dgemma/dgemma.h"

namespace dgemma {

/// F32 in the memory of the card that computes the graphs, without gaps.
struct ExpertTensors {
    ggml_tensor* logits;  // [experts, n]: the router's, before the softmax
    ggml_tensor* rows;    // [hidden, n]: the experts' input, and in its place their weighted sums
};

class OwnExperts {
  public:
    virtual ~OwnExperts() = default;
    /// Queues layer i's experts after all that ggml was given, and what ggml is given from now on after them.
    virtual void queue(size_t layer, const ExpertTensors& tensors) = 0;
    virtual void add_memory(MemoryUse& use) const = 0;
};

}  // namespace dgemma
