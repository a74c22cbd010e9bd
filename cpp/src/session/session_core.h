// One conversation's state: the cache, the two passes' graphs and the step's buffers. Used on the engine's thread only.
#pragma once

#include <memory>
#include <vector>

#include "calibrate/input_collector.h"
#include "denoise/loop.h"
#include "graph/passes.h"
#include "profile/part_timer.h"
#include "session/engine_core.h"
#include "session/kv_cache.h"
#include "session/step_logits.h"

namespace dgemma {

class SessionCore final : public Denoiser {
  public:
    explicit SessionCore(EngineCore& engine);

    KvCache& cache() { return cache_; }
    void check_tokens(const std::vector<int32_t>& tokens, const char* what) const;
    void add_memory(MemoryUse& use) const;

    int canvas_length() const override { return static_cast<int>(hparams().canvas); }
    int n_vocab() const override { return static_cast<int>(hparams().vocab); }
    const std::vector<int32_t>& eos_ids() const override { return hparams().eos_ids; }
    int room() const override { return cache_.shape().n_ctx - cache_.n_past(); }
    void encode(const std::vector<int32_t>& tokens) override;
    SamplerStep denoise(const std::vector<int32_t>& canvas, bool conditioned, const StepRequest& request) override;
    /// The same step for a caller who samples himself and reads logits() next.
    void compute_logits(const std::vector<int32_t>& canvas, bool conditioned);
    StepLogits& logits() { return *logits_; }

    void collect_inputs();
    std::vector<InputSums> take_inputs();
    void time_parts();
    std::map<std::string, double> take_parts();

  private:
    const Hparams& hparams() const { return engine_.model().hparams(); }

    EngineCore& engine_;
    KvCache cache_;
    std::unique_ptr<StepLogits> logits_;
    std::unique_ptr<OwnLayers> layers_;  // null: ggml computes them
    PassRunner encoder_, decoder_;
    std::unique_ptr<InputCollector> collector_;  // null unless inputs are collected
    std::unique_ptr<PartTimer> timer_;           // null unless parts are timed
};

}  // namespace dgemma
