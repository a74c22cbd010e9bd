#include "cuda/card_experts.h"

#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

constexpr int64_t kMostTiles = 65535;  // blocks in the second dimension of a launch

size_t size(int64_t n) { return static_cast<size_t>(n); }

size_t pairs(const ExpertShape& shape, int most_tokens) { return size(most_tokens) * size(shape.used); }

/// An expert's matrix of this many rows: its bytes are counted in 32 bits.
bool takes(ggml_type type, int rows, int columns) {
    return has_expert_product(type) && columns % ggml_blck_size(type) == 0 &&
           size(rows) * ggml_row_size(type, columns) < size_t{1} << 31;
}

}  // namespace

bool fits(const ExpertShape& shape, int most_tokens, ggml_type gate_up, ggml_type down) {
    const bool is_routed = shape.used >= 1 && shape.used <= kMaxUsed && shape.used <= shape.experts &&
                           shape.experts <= kMaxExperts && most_tokens >= 1 &&
                           static_cast<int64_t>(most_tokens) * shape.used / kTilePairs + kMaxExperts <= kMostTiles;
    return is_routed && shape.hidden >= 1 && shape.hidden % kWeightRows == 0 && shape.ffn >= 1 &&
           shape.ffn % kGroupValues == 0 && takes(gate_up, 2 * shape.ffn, shape.hidden) &&
           takes(down, shape.hidden, shape.ffn);
}

void check_fits(const ExpertShape& shape, int most_tokens, ggml_type gate_up, ggml_type down) {
    if (fits(shape, most_tokens, gate_up, down)) return;
    const auto text = [](int n) { return std::to_string(n); };
    throw RequestError("CUDA: no kernel for " + text(most_tokens) + " tokens and " + text(shape.used) + " of " +
                       text(shape.experts) + " experts of " + ggml_type_name(gate_up) + ", down of " +
                       ggml_type_name(down) + ", widths " + text(shape.hidden) + " and " + text(shape.ffn) +
                       ": it takes " + text(kMaxUsed) + " of " + text(kMaxExperts) +
                       " at most, types Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, IQ4_XS, Q4_K and Q5_K, multiples of " +
                       text(kWeightRows) + " and " + text(kGroupValues) + " in whole blocks");
}

uint64_t card_experts_bytes(const ExpertShape& shape, int most_tokens, Arithmetic arithmetic) {
    const size_t n_pairs = pairs(shape, most_tokens);
    const size_t by_pair = n_pairs * (2 * sizeof(int32_t) + sizeof(float) + size(shape.hidden) * sizeof(float));
    const size_t tiles = size(shape.most_tiles(most_tokens)) * sizeof(Tile) + sizeof(int32_t);
    return by_pair + tiles + CardRows::n_bytes(arithmetic, static_cast<int64_t>(n_pairs), shape.ffn);
}

CardExperts::CardExperts(const ExpertShape& shape, int most_tokens, Arithmetic arithmetic)
    : shape_(shape),
      experts_(pairs(shape, most_tokens)),
      weights_(pairs(shape, most_tokens)),
      pairs_(pairs(shape, most_tokens)),
      tiles_(size(shape.most_tiles(most_tokens))),
      n_tiles_(1),
      gated_(arithmetic, static_cast<int64_t>(pairs_.size()), shape.ffn),
      products_(pairs(shape, most_tokens) * size(shape.hidden)) {}

void CardExperts::route(int n, const float* logits, const float* expert_scale, const Stream& stream) const {
    route_tokens(shape_, n, logits, expert_scale, routes(), stream);
    sort_pairs(shape_, n, experts_.data(), order(), stream);
}

void CardExperts::multiply(const ExpertWeights& gate_up, const ExpertWeights& down, int n, const ProductRows& rows,
                           const Stream& stream) const {
    multiply_gate_up(shape_, n, gate_up, order(), rows, gated(), stream);
    multiply_down(shape_, n, down, order(), gated(), products_.data(), stream);
}

}  // namespace dgemma::cuda
