// The vocabulary's side of the passes on one card: owns what the kernels need besides the logits, and launches them.
#pragma once

#include <optional>
#include <vector>

#include "cuda/card.h"
#include "cuda/conditioning.h"
#include "cuda/sampler.h"
#include "denoise/sampler.h"

namespace dgemma::cuda {

/// Tokens that a row may keep before it is multiplied like a dense one. A guess until it is measured: what a token
/// costs in sum_rows, over what a whole row costs in multiply_slab.
constexpr int kMaxKept = 4096;

struct StepShape {
    LogitShape logits;
    int hidden;
    int max_tokens;    // of one pass, at least the canvas
    bool is_buffered;  // rows go to memory that is not the card's, so that kernels leave them in a buffer first
};

/// Whether the kernels' bounds hold; RequestError where they do not.
bool fits(const StepShape& shape);
void check_fits(const StepShape& shape);

/// What a CardStep takes on the card.
uint64_t card_step_bytes(const StepShape& shape, int max_kept);

/// Used by one thread at a time. What embed(), self_conditioning() and no_conditioning() fill is there for whatever
/// comes after stream(), and for the host once wait() returned.
class CardStep {
  public:
    /// On the current card. `dropped_mass`: above 0, as in soft_embedding.h. The shape must fit.
    CardStep(const StepShape& shape, const Embedding& embedding, float dropped_mass, int max_kept);

    /// One step of the sampler on raw logits [canvas, n_vocab] on the card, which must stay as they are until
    /// self_conditioning() has read them. Error if one is not a number.
    SamplerStep sample(const float* logits, const StepRequest& request);
    /// z [canvas, n_vocab] on the card, in place of a step's logits.
    void condition_on(const float* z);
    /// rows [n, hidden]: those of n tokens of the vocabulary, at most max_tokens, times sqrt(hidden). Where they are
    /// the last step's next canvas, nothing comes from the host.
    void embed(const std::vector<int32_t>& tokens, float* rows);
    /// soft [canvas, hidden] from the last sample() or condition_on().
    void self_conditioning(float* soft);
    /// soft [canvas, hidden] = 0
    void no_conditioning(float* soft);
    void wait() const { stream_.wait(); }
    const Stream& stream() const { return stream_; }

    /// Of the last step: its mean entropy and whether its argmax was that of the step before.
    const StepSummary& summary() const { return summary_; }
    /// How many rows are flat (conditioning.h).
    int n_flat() const { return n_flat_; }
    /// [canvas] int32 on the card: the last step's next canvas.
    const int32_t* next_canvas() const { return next_canvas_.data(); }

  private:
    struct Report {
        StepSummary summary;
        int32_t n_flat;
    };

    void summarise(const LogitRows& rows, const StepSite& site);
    float* place_for(float* rows) { return buffer_ ? buffer_->data() : rows; }
    void send(float* rows, int n);
    KeptTokens kept() const;
    Report* report() const { return reinterpret_cast<Report*>(report_.data()); }
    PositionResult* results() const { return reinterpret_cast<PositionResult*>(report_.data() + sizeof(Report)); }

    StepShape shape_;
    Embedding embedding_;
    float cut_;
    int max_kept_;
    LogitRows rows_{};
    StepSummary summary_{};
    int n_flat_ = 0;
    DeviceArray<ChunkStats> stats_;
    DeviceArray<RowState> states_;
    DeviceArray<int32_t> argmax_, next_canvas_, tokens_;
    std::vector<int32_t> sampled_;  // what next_canvas_ holds; empty: nothing of use
    DeviceArray<char> report_;      // what goes to the host in one copy: a Report, then a PositionResult a position
    DeviceArray<int32_t> offsets_, n_kept_, flat_rows_;
    DeviceArray<KeptToken> list_;
    DeviceArray<uint16_t> flat_probabilities_;
    DeviceArray<float> flat_sums_;
    std::optional<DeviceArray<float>> buffer_;  // [max_tokens, hidden], where is_buffered
    Stream stream_;                             // the last: done with the memory above before it is freed
};

}  // namespace dgemma::cuda
