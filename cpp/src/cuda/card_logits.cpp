#include "cuda/card_logits.h"

#include <optional>

#include "cuda/card_step.h"
#include "denoise/rows.h"

namespace dgemma::cuda {
namespace {

StepShape shape_of(const Hparams& h) {
    return {{static_cast<int>(h.canvas), static_cast<int>(h.vocab), h.logit_softcap}, static_cast<int>(h.hidden)};
}

Embedding embedding_of(const ggml_tensor* head) {
    return {head->type, static_cast<const uint8_t*>(head->data), static_cast<int64_t>(head->nb[1]),
            static_cast<int>(head->ne[0])};
}

class CardLogits final : public StepLogits {
  public:
    CardLogits(const Model& model, ggml_backend_t head, float dropped_mass, ThreadPool& pool)
        : hparams_(model.hparams()), pool_(pool), place_(hparams_, head, /*plan_only=*/false) {
        use_card_of(product()->data);
        step_.emplace(shape_of(hparams_), embedding_of(model.weights().head), dropped_mass, kMaxKept);
    }

    ggml_tensor* product() const override { return place_.tensor(); }

    SamplerStep sample(const StepRequest& request) override { return step_->sample(logits(), request); }

    void self_conditioning(float* soft, const std::function<bool()>& /*stopping*/) override {
        step_->self_conditioning(soft);  // milliseconds: not worth stopping in its middle
    }

    void condition_on(const float* z) override {
        ggml_backend_tensor_set(product(), z, 0, ggml_nbytes(product()));
        step_->condition_on(logits());
    }

    void read(float* to) override {
        ggml_backend_tensor_get(product(), to, 0, ggml_nbytes(product()));
        pool_.run(static_cast<int>(hparams_.canvas),
                  [&](int row) { soft_cap_row(to + row * hparams_.vocab, hparams_.vocab, hparams_.logit_softcap); });
    }

    void add_memory(MemoryUse& use) const override {
        use[device_name(place_.head())]["sampler"] +=
            ggml_nbytes(product()) + card_step_bytes(shape_of(hparams_), kMaxKept);
    }

  private:
    const float* logits() const { return static_cast<const float*>(product()->data); }

    const Hparams& hparams_;
    ThreadPool& pool_;
    LogitProduct place_;
    std::optional<CardStep> step_;  // made once the card is selected
};

bool can_do(const Model& model) {
    return has_conditioning(model.weights().head->type) && fits(shape_of(model.hparams()));
}

}  // namespace

uint64_t card_logits_bytes(const Model& model, const std::string& device) {
    return would_run_on(device) && can_do(model) ? card_step_bytes(shape_of(model.hparams()), kMaxKept) : 0;
}

std::unique_ptr<StepLogits> make_card_logits(const Model& model, ggml_backend_t head, float dropped_mass,
                                             ThreadPool& pool) {
    return runs_on(head) && can_do(model) ? std::make_unique<CardLogits>(model, head, dropped_mass, pool) : nullptr;
}

}  // namespace dgemma::cuda
