// The denoising loop: block after block, step after step. Knows no ggml and draws nothing; what happens are events.
#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <vector>

#include "denoise/philox.h"
#include "denoise/sampler.h"
#include "denoise/stop.h"
#include "dgemma/dgemma.h"

namespace dgemma {

/// What the loop needs of a model.
class Denoiser {
  public:
    virtual ~Denoiser() = default;
    virtual int canvas_length() const = 0;
    virtual int n_vocab() const = 0;
    virtual float soft_cap() const = 0;
    virtual const std::vector<int32_t>& eos_ids() const = 0;
    /// How many more positions the context holds.
    virtual int room() const = 0;
    /// Encodes tokens and appends them to the cache.
    virtual void encode(const std::vector<int32_t>& tokens) = 0;
    /// The LM head's product for a canvas, [C, V], before the soft-cap. The caller may write to it, and what it leaves
    /// there is what the next call conditions on if `conditioned`.
    virtual float* denoise(const std::vector<int32_t>& canvas, bool conditioned) = 0;
    /// Told when the sampler is done with what denoise() gave.
    virtual void sampled() = 0;
};

class DenoiseLoop {
  public:
    /// RequestError if a number of the request is out of range.
    DenoiseLoop(Denoiser& model, ThreadPool& pool, const GenerationRequest& request);

    /// Works until there is an event; nothing after the DoneEvent.
    std::optional<Event> next();

  private:
    using Clock = std::chrono::steady_clock;

    void begin();
    void begin_block();
    void step();
    void end_block();
    void finish(DoneReason reason, std::optional<int32_t> end_token);
    void encode(const std::vector<int32_t>& tokens);
    RandomSite site(int position, Stream stream) const;

    Denoiser& model_;
    ThreadPool& pool_;
    GenerationRequest request_;
    StopRule stop_;
    std::deque<Event> events_;
    GenerationStats stats_;
    Clock::time_point start_;
    bool begun_ = false, done_ = false;
    int block_ = -1;  // the block being denoised
    int step_ = 0;    // steps done on it
    bool in_block_ = false;
    std::vector<int32_t> canvas_, argmax_;
};

}  // namespace dgemma
