// One layer's mixture of experts on one card: owns what the kernels need between them, and launches them.
#pragma once

#include <functional>
#include <vector>

#include "cuda/card_rows.h"
#include "cuda/experts.h"

namespace dgemma::cuda {

/// What a layer's experts are. RequestError where the kernels' bounds do not hold (experts.h).
struct ExpertLayer {
    const float* expert_scale;  // [experts] on the card
    ExpertWeights gate_up;      // [experts, 2 ffn, hidden]
    ExpertWeights down;         // [experts, hidden, ffn]
};

/// Whether the kernels' bounds hold for up to `most_tokens` tokens; RequestError where they do not.
bool fits(const ExpertShape& shape, int most_tokens, ggml_type gate_up, ggml_type down);
void check_fits(const ExpertShape& shape, int most_tokens, ggml_type gate_up, ggml_type down);

/// What a CardExperts takes on the card.
uint64_t card_experts_bytes(const ExpertShape& shape, int most_tokens, Arithmetic arithmetic);

/// From the router's logits [n, experts] and the experts' input x [n, hidden] to their weighted sums [n, hidden], all
/// on the card and 16-byte aligned. The sums may take x's place.
struct ExpertPass {
    ExpertLayer layer;
    int n;
    const float *logits, *x;
    float* sums;
};

/// One kernel of a pass.
struct ExpertLaunch {
    const char* kernel;
    std::function<void(const Stream&)> queue;
};

/// One for all layers of a model: they follow each other on a stream.
class CardExperts {
  public:
    /// On the current card.
    CardExperts(const ExpertShape& shape, int most_tokens, Arithmetic arithmetic);

    /// Queues a pass of at most most_tokens.
    void run(const ExpertPass& pass, const Stream& stream) const;
    /// Its six kernels, in order. Each may be queued again: none changes what it reads.
    std::vector<ExpertLaunch> launches(const ExpertPass& pass) const;

    /// The first two of them: chooses and orders.
    void route(int n, const float* logits, const float* expert_scale, const Stream& stream) const;
    /// And the two products, of input that is rounded already, in the same arithmetic: leaves products().
    void multiply(const ExpertWeights& gate_up, const ExpertWeights& down, int n, const ProductRows& rows,
                  const Stream& stream) const;

    /// Of the last run. products: [n used, hidden], each pair's.
    const float* products() const { return products_.data(); }
    Routes routes() const { return {experts_.data(), weights_.data()}; }
    PairOrder order() const { return {pairs_.data(), tiles_.data(), n_tiles_.data()}; }

  private:
    ExpertShape shape_;
    DeviceArray<int32_t> experts_;
    DeviceArray<float> weights_;
    DeviceArray<int32_t> pairs_;
    DeviceArray<Tile> tiles_;
    DeviceArray<int32_t> n_tiles_;
    CardRows rows_, gated_;
    DeviceArray<float> products_;
};

}  // namespace dgemma::cuda
