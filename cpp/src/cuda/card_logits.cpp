#include "cuda/card_logits.h"

#include <optional>

#include "cuda/card_step.h"
#include "denoise/rows.h"
#include "session/token_rows.h"

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
    CardLogits(const Model& model, ggml_backend_t head, float dropped_mass, int64_t max_tokens, ThreadPool& pool)
        : hparams_(model.hparams()),
          embedding_(model.weights().token_embd),
          pool_(pool),
          place_(hparams_, head, /*plan_only=*/false),
          rows_(static_cast<size_t>(max_tokens * hparams_.hidden)) {
        use_card_of(product()->data);
        step_.emplace(shape_of(hparams_), embedding_of(model.weights().head), dropped_mass, kMaxKept);
    }

    ggml_tensor* product() const override { return place_.tensor(); }

    SamplerStep sample(const StepRequest& request) override { return step_->sample(logits(), request); }

    void embed(const std::vector<int32_t>& tokens, ggml_tensor* rows) override {
        look_up_rows(tokens, embedding_, rows_.data(), pool_);
        ggml_backend_tensor_set(rows, rows_.data(), 0, ggml_nbytes(rows));
    }

    void embed_canvas(const std::vector<int32_t>& canvas, bool conditioned, const TokenInputs& inputs,
                      const std::function<bool()>& /*stopping*/) override {
        embed(canvas, inputs.rows);
        std::fill(rows_.begin(), rows_.end(), 0.0f);
        if (conditioned) step_->self_conditioning(rows_.data());  // milliseconds: not worth stopping in its middle
        ggml_backend_tensor_set(inputs.soft, rows_.data(), 0, ggml_nbytes(inputs.soft));
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
            ggml_nbytes(product()) + card_step_bytes(shape_of(hparams_), kMaxKept) + rows_.size() * sizeof(float);
    }

  private:
    const float* logits() const { return static_cast<const float*>(product()->data); }

    const Hparams& hparams_;
    const ggml_tensor* embedding_;
    ThreadPool& pool_;
    LogitProduct place_;
    std::vector<float> rows_;       // [max_tokens, hidden]
    std::optional<CardStep> step_;  // made once the card is selected
};

bool can_do(const Model& model) {
    return has_conditioning(model.weights().head->type) && fits(shape_of(model.hparams()));
}

}  // namespace

uint64_t card_logits_bytes(const Model& model, const std::string& device) {
    return would_run_on(device) && can_do(model) ? card_step_bytes(shape_of(model.hparams()), kMaxKept) : 0;
}

std::unique_ptr<StepLogits> make_card_logits(const Model& model, const Devices& devices, float dropped_mass,
                                             int64_t max_tokens, ThreadPool& pool) {
    ggml_backend_t head = devices.get(model.head_device());
    if (!runs_on(head) || !can_do(model)) return nullptr;
    return std::make_unique<CardLogits>(model, head, dropped_mass, max_tokens, pool);
}

}  // namespace dgemma::cuda
