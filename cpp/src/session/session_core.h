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

namespace dgemma {

class SessionCore final : public Denoiser {
  public:
    /// `plan_only`: measures what a session would take and can do nothing else.
    SessionCore(EngineCore& engine, bool plan_only);

    KvCache& cache() { return cache_; }
    void check_tokens(const std::vector<int32_t>& tokens, const char* what) const;
    void add_memory(MemoryUse& use) const;

    int canvas_length() const override { return static_cast<int>(hparams().canvas); }
    int n_vocab() const override { return static_cast<int>(hparams().vocab); }
    float soft_cap() const override { return hparams().logit_softcap; }
    const std::vector<int32_t>& eos_ids() const override { return hparams().eos_ids; }
    int room() const override { return cache_.shape().n_ctx - cache_.n_past(); }
    void encode(const std::vector<int32_t>& tokens) override;
    float* denoise(const std::vector<int32_t>& canvas, bool conditioned) override;
    void sampled() override;

    void collect_inputs();
    std::vector<InputSums> take_inputs();
    void time_parts();
    std::map<std::string, double> take_parts();

    /// [C, V]: what denoise() left and conditions on.
    float* logits() { return logits_; }

  private:
    const Hparams& hparams() const { return engine_.model().hparams(); }
    ggml_backend_t head_backend() const { return engine_.devices().get(engine_.model().head_on_gpu()); }
    void allocate_logits(bool plan_only);
    uint64_t logits_bytes() const;

    EngineCore& engine_;
    KvCache cache_;
    ContextPtr logits_context_;
    ggml_tensor* product_ = nullptr;  // [vocab, canvas] on the head's device
    BufferPtr product_buffer_;
    std::vector<float> host_logits_;  // only where the head's device is not the host
    float* logits_ = nullptr;
    std::vector<float> soft_;  // [C, hidden]
    PassRunner encoder_, decoder_;
    std::unique_ptr<InputCollector> collector_;  // null unless inputs are collected
    std::unique_ptr<PartTimer> timer_;           // null unless parts are timed
    uint64_t planned_compute_ = 0;
};

}  // namespace dgemma
