// Tokens' rows of the embedding on the card, from the embedding as it is stored.
//
// The twin that defines it is session/token_rows.cpp, to the last bit: a value of every type is rounded once, and its
// product with the scale once more.
//     gather_rows         [hidden / 256, tokens] blocks
// Bounds: those of the embedding (conditioning.h); at most kMaxTokens.
#pragma once

#include <cstdint>

#include "cuda/conditioning.h"

namespace dgemma::cuda {

constexpr int kMaxTokens = 65535;  // of one pass: blocks in the second dimension of a launch

/// rows [n, hidden] = the tokens' rows times sqrt(hidden). `tokens` [n], on the card, are in the vocabulary.
void embed_tokens(const int32_t* tokens, int n, const Embedding& embedding, float* rows, const Stream& stream);

}  // namespace dgemma::cuda
