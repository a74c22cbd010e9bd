// What a pass reads of its tokens.
#pragma once

#include <ggml.h>

namespace dgemma {

/// Tensors [hidden, n] F32 in the memory of the first layer's device, at the same addresses as long as the pass keeps
/// its shape. To be filled before each run.
struct TokenInputs {
    ggml_tensor* rows;  // the tokens' rows of the embedding, times sqrt(hidden)
    ggml_tensor* soft;  // the soft embedding of the step before, zeros without one; null in the encoder
};

}  // namespace dgemma
