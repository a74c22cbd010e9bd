// The vocabulary's side of the passes: what they read of tokens, and a step's logits, what the sampler says of them and
// what the next step makes of them.
#pragma once

#include <ggml.h>

#include <functional>
#include <vector>

#include "denoise/sampler.h"
#include "graph/token_inputs.h"
#include "model/model.h"
#include "session/logit_product.h"
#include "support/thread_pool.h"

namespace dgemma {

/// Canvas x vocabulary numbers exist once, here, and canvas x hidden ones go from here into the passes' inputs. Outside
/// of it a step is a few numbers for each position, so that an implementation may keep the rest on another device than
/// the host.
class StepLogits {
  public:
    virtual ~StepLogits() = default;

    /// [vocab, canvas] F32 in a buffer: where the decoder's graph leaves the product, before the soft-cap. sample() and
    /// read() wait for it; once they return, nothing is going on in any device.
    virtual ggml_tensor* product() const = 0;
    /// One step of the sampler on the product. What the next step conditions on is kept in its place.
    virtual SamplerStep sample(const StepRequest& request) = 0;

    // What the next two fill is there for the pass that is run next, but not yet for the host.

    /// `rows` [hidden, n], the encoder's input, of n tokens of the vocabulary.
    virtual void embed(const std::vector<int32_t>& tokens, ggml_tensor* rows) = 0;
    /// The decoder's inputs for a canvas: its rows, and the softmax of what sample() or condition_on() left, times the
    /// embedding (soft_embedding.h); zeros unless `conditioned`. Where that takes long, Cancelled once `stopping` is
    /// true.
    virtual void embed_canvas(const std::vector<int32_t>& canvas, bool conditioned, const TokenInputs& inputs,
                              const std::function<bool()>& stopping) = 0;

    /// For a caller who samples himself: takes z [C, V], a step's logits over its temperature, in place of
    /// sample()'s...
    virtual void condition_on(const float* z) = 0;
    /// ... and gives the product after the soft-cap, [C, V].
    virtual void read(float* logits) = 0;

    virtual void add_memory(MemoryUse& use) const = 0;
};

/// The logits in the host's memory, sampled and multiplied there, whatever device computes the head.
class HostLogits final : public StepLogits {
  public:
    /// `dropped_mass`: soft_embedding's; `max_tokens`: of one pass. BackendError if the head's device has no room.
    HostLogits(const Model& model, const Devices& devices, float dropped_mass, int64_t max_tokens, ThreadPool& pool);

    ggml_tensor* product() const override { return place_.tensor(); }
    SamplerStep sample(const StepRequest& request) override;
    void embed(const std::vector<int32_t>& tokens, ggml_tensor* rows) override;
    void embed_canvas(const std::vector<int32_t>& canvas, bool conditioned, const TokenInputs& inputs,
                      const std::function<bool()>& stopping) override;
    void condition_on(const float* z) override;
    void read(float* logits) override;
    void add_memory(MemoryUse& use) const override;

  private:
    void fetch();
    void fill(ggml_tensor* input, const std::function<void(float*)>& write);

    const Model& model_;
    ggml_backend_t cpu_;
    float dropped_mass_;
    ThreadPool& pool_;
    LogitProduct place_;
    std::vector<float> copy_;  // only where the head's device is not the host
    float* logits_ = nullptr;  // [C, V] in the host's memory
    std::vector<float> rows_;  // [max_tokens, hidden], only where the first layer's device is not the host
};

}  // namespace dgemma
