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
    virtual const std::vector<int32_t>& eos_ids() const = 0;
    /// How many more positions the context holds.
    virtual int room() const = 0;
    /// Encodes tokens and appends them to the cache.
    virtual void encode(const std::vector<int32_t>& tokens) = 0;
    /// One denoising step: the logits of a canvas, sampled. If `conditioned`, on the last step's own answer.
    virtual SamplerStep denoise(const std::vector<int32_t>& canvas, bool conditioned, const StepRequest& request) = 0;
};

class DenoiseLoop {
  public:
    /// RequestError if a number of the request is out of range.
    DenoiseLoop(Denoiser& model, const GenerationRequest& request);

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

    Denoiser& model_;
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
