// One layer's mixture of experts on one card: owns what the kernels need between them, and launches them.
#pragma once

#include "cuda/card_rows.h"
#include "cuda/experts.h"

namespace dgemma::cuda {

/// Whether the kernels' bounds hold for up to `most_tokens` tokens; RequestError where they do not.
bool fits(const ExpertShape& shape, int most_tokens, ggml_type gate_up, ggml_type down);
void check_fits(const ExpertShape& shape, int most_tokens, ggml_type gate_up, ggml_type down);

/// What a CardExperts takes on the card.
uint64_t card_experts_bytes(const ExpertShape& shape, int most_tokens, Arithmetic arithmetic);

/// One for all layers of a model: they follow each other on a stream.
class CardExperts {
  public:
    /// On the current card, for passes of at most most_tokens.
    CardExperts(const ExpertShape& shape, int most_tokens, Arithmetic arithmetic);

    /// Chooses experts and orders the pairs, from the router's logits [n, experts] and the experts' own scales
    /// [experts], both on the card.
    void route(int n, const float* logits, const float* expert_scale, const Stream& stream) const;
    /// The two products of those, from the experts' input in the same arithmetic: leaves products().
    void multiply(const ExpertWeights& gate_up, const ExpertWeights& down, int n, const ProductRows& rows,
                  const Stream& stream) const;

    /// Of the last pass. products: [n used, hidden], each pair's.
    float* products() const { return products_.data(); }
    Routes routes() const { return {experts_.data(), weights_.data()}; }
    PairOrder order() const { return {pairs_.data(), tiles_.data(), n_tiles_.data()}; }
    ProductRows gated() const { return gated_.get(); }

  private:
    ExpertShape shape_;
    DeviceArray<int32_t> experts_;
    DeviceArray<float> weights_;
    DeviceArray<int32_t> pairs_;
    DeviceArray<Tile> tiles_;
    DeviceArray<int32_t> n_tiles_;
    CardRows gated_;
    DeviceArray<float> products_;
};

}  // namespace dgemma::cuda
