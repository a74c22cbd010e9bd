#include "cuda/layer_experts.h"

#include <optional>

#include "cuda/card_experts.h"
#include "cuda/ggml_order.h"

namespace dgemma::cuda {
namespace {

ExpertShape shape_of(const Hparams& h) {
    return {static_cast<int>(h.experts), static_cast<int>(h.experts_used), static_cast<int>(h.hidden),
            static_cast<int>(h.expert_ffn)};
}

ExpertWeights weights_of(const ggml_tensor* tensor) {
    return {tensor->type, static_cast<const uint8_t*>(tensor->data), static_cast<int64_t>(tensor->nb[1]),
            static_cast<int64_t>(tensor->nb[2])};
}

float* values(const ggml_tensor* tensor) { return static_cast<float*>(tensor->data); }

class LayerExperts final : public OwnExperts {
  public:
    LayerExperts(const Model& model, ggml_backend_t card, int most_tokens)
        : layers_(model.weights().layers),
          device_(device_name(card)),
          n_bytes_(layer_experts_bytes(model, most_tokens)) {
        use_card_of(model.weights().head->data);
        experts_.emplace(shape_of(model.hparams()), most_tokens);
        order_.emplace(card);
        stream_.emplace();
    }

    void queue(size_t layer, const ExpertTensors& tensors) override {
        const LayerWeights& w = layers_[layer];
        use_card_of(w.gate_up_exps->data);
        order_->after_ggml(*stream_);
        experts_->run({{values(w.expert_scale), weights_of(w.gate_up_exps), weights_of(w.down_exps)},
                       static_cast<int>(tensors.rows->ne[1]),
                       values(tensors.logits),
                       values(tensors.rows),
                       values(tensors.rows)},
                      *stream_);
        order_->before_ggml(*stream_);
    }

    void add_memory(MemoryUse& use) const override { use[device_]["compute"] += n_bytes_; }

  private:
    const std::vector<LayerWeights>& layers_;
    std::string device_;
    uint64_t n_bytes_;
    std::optional<CardExperts> experts_;  // these three once the card is selected
    std::optional<GgmlOrder> order_;
    std::optional<Stream> stream_;  // the last: done with the memory above before it is freed
};

}  // namespace

std::string why_no_layer_experts(const Model& model, const std::string& device, int64_t max_tokens) {
    if (!would_run_on(device)) return "dgemma's CUDA kernels do not run on " + device;
    for (const LayerWeights& w : model.weights().layers) {
        const ggml_type gate_up = w.gate_up_exps->type, down = w.down_exps->type;
        if (fits(shape_of(model.hparams()), static_cast<int>(max_tokens), gate_up, down)) continue;
        return std::string("there is no kernel for experts of ") + ggml_type_name(gate_up) + " and " +
               ggml_type_name(down) + " in this model's sizes";
    }
    return "";
}

uint64_t layer_experts_bytes(const Model& model, int64_t max_tokens) {
    return card_experts_bytes(shape_of(model.hparams()), static_cast<int>(max_tokens));
}

std::unique_ptr<OwnExperts> make_layer_experts(const Model& model, const Devices& devices, int64_t max_tokens) {
    ggml_backend_t card = devices.get(model.head_device());
    if (!runs_on(card)) {  // the plan knows that some card has code
        throw BackendError(device_name(card) +
                           ": dgemma's CUDA kernels were not built for this card; card_experts "
                           "\"ggml\" needs none");
    }
    return std::make_unique<LayerExperts>(model, card, static_cast<int>(max_tokens));
}

}  // namespace dgemma::cuda
