// ggml's quantisers of Q4_K, Q5_K and Q6_K once more, sixteen sub-blocks at a time: the same bytes, several times as
// fast. Nearly all of a quantiser's time is the search for the scale of each sub-block, and the sub-blocks do not
// depend on each other.
#pragma once

#include <ggml.h>

#include <cstdint>

namespace dgemma {

/// x: n_blocks * 256 floats, finite; y: that many blocks of the type. Without importance.
using BlockQuantizer = void (*)(const float* x, uint8_t* y, int64_t n_blocks);

/// Null where there is none for the type, or where its bytes are not those of the ggml at hand: a ggml that was
/// compiled to fuse multiplications with additions rounds otherwise. That is tried out once.
BlockQuantizer fast_quantizer(ggml_type type);

}  // namespace dgemma
