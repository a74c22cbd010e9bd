#include "cuda/card_logits.h"

#include <optional>

#include "cuda/card_step.h"
#include "cuda/ggml_order.h"
#include "denoise/rows.h"

namespace dgemma::cuda {
namespace {

StepShape shape_of(const Hparams& h, int64_t max_tokens, bool is_buffered) {
    return {{static_cast<int>(h.canvas), static_cast<int>(h.vocab), h.logit_softcap},
            static_cast<int>(h.hidden),
            static_cast<int>(max_tokens),
            is_buffered};
}

float* values(ggml_tensor* tensor) { return static_cast<float*>(tensor->data); }

Embedding embedding_of(const ggml_tensor* head) {
    return {head->type, static_cast<const uint8_t*>(head->data), static_cast<int64_t>(head->nb[1]),
            static_cast<int>(head->ne[0])};
}

class CardLogits final : public StepLogits {
  public:
    CardLogits(const Model& model, ggml_backend_t head, float dropped_mass, const StepShape& shape, ThreadPool& pool)
        : hparams_(model.hparams()), shape_(shape), pool_(pool), place_(hparams_, head, /*plan_only=*/false) {
        use_card_of(product()->data);
        step_.emplace(shape_, embedding_of(model.weights().head), dropped_mass, kMaxKept);
        order_.emplace(head);
    }

    ggml_tensor* product() const override { return place_.tensor(); }

    SamplerStep sample(const StepRequest& request) override {
        order_->after_ggml(step_->stream());
        return step_->sample(logits(), request);
    }

    void embed(const std::vector<int32_t>& tokens, ggml_tensor* rows) override {
        step_->embed(tokens, values(rows));
        hand_over();
    }

    void embed_canvas(const std::vector<int32_t>& canvas, bool conditioned, const TokenInputs& inputs,
                      const std::function<bool()>& /*stopping*/) override {
        step_->embed(canvas, values(inputs.rows));
        if (conditioned) {
            step_->self_conditioning(values(inputs.soft));  // milliseconds: not worth stopping
        } else {
            step_->no_conditioning(values(inputs.soft));
        }
        hand_over();
    }

    void condition_on(const float* z) override {
        ggml_backend_tensor_set(product(), z, 0, ggml_nbytes(product()));
        step_->condition_on(logits());
    }

    void read(float* to) override {
        ggml_backend_synchronize(place_.head());
        ggml_backend_tensor_get(product(), to, 0, ggml_nbytes(product()));
        pool_.run(static_cast<int>(hparams_.canvas),
                  [&](int row) { soft_cap_row(to + row * hparams_.vocab, hparams_.vocab, hparams_.logit_softcap); });
    }

    void add_memory(MemoryUse& use) const override {
        use[device_name(place_.head())]["sampler"] += ggml_nbytes(product()) + card_step_bytes(shape_, kMaxKept);
    }

  private:
    /// The passes' inputs to ggml, whose first layer has the head's queue or another.
    void hand_over() {
        if (shape_.is_buffered) return step_->wait();
        order_->before_ggml(step_->stream());
    }

    const float* logits() const { return static_cast<const float*>(product()->data); }

    const Hparams& hparams_;
    StepShape shape_;
    ThreadPool& pool_;
    LogitProduct place_;
    std::optional<CardStep> step_;  // made once the card is selected
    std::optional<GgmlOrder> order_;
};

bool can_do(const Model& model, const StepShape& shape) {
    return has_conditioning(model.weights().head->type) && fits(shape);
}

}  // namespace

uint64_t card_logits_bytes(const Model& model, const std::string& head, int64_t max_tokens, bool is_buffered) {
    const StepShape shape = shape_of(model.hparams(), max_tokens, is_buffered);
    return would_run_on(head) && can_do(model, shape) ? card_step_bytes(shape, kMaxKept) : 0;
}

std::string why_not_on_card(const Model& model, const std::string& head, int64_t max_tokens) {
    if (head.rfind("CUDA", 0) != 0) return "";
    if (const std::string why = why_unavailable(); !why.empty()) return why;
    if (can_do(model, shape_of(model.hparams(), max_tokens, /*is_buffered=*/true))) return "";
    return std::string("dgemma's CUDA kernels read no embedding of type ") +
           ggml_type_name(model.weights().head->type) + ", or none of this shape";
}

std::unique_ptr<StepLogits> make_card_logits(const Model& model, const Devices& devices, float dropped_mass,
                                             int64_t max_tokens, ThreadPool& pool) {
    ggml_backend_t head = devices.get(model.head_device());
    const StepShape shape = shape_of(model.hparams(), max_tokens, model.head_device() != model.units().front());
    if (!runs_on(head) || !can_do(model, shape)) return nullptr;
    return std::make_unique<CardLogits>(model, head, dropped_mass, shape, pool);
}

}  // namespace dgemma::cuda
