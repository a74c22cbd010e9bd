// What a model has to have for our kernels to compute its layers.
#include "cuda/card_experts.h"
#include "cuda/card_layers.h"
#include "cuda/dense.h"
#include "cuda/heads.h"
#include "cuda/layer_memory.h"
#include "cuda/layer_rows.h"

namespace dgemma::cuda {
namespace {

/// Empty where our kernels multiply by all of these weights.
std::string why_no_product(const std::vector<const ggml_tensor*>& weights) {
    for (const ggml_tensor* w : weights) {
        if (w == nullptr || (has_dense_product(w->type) && w->ne[0] % kGroupValues == 0)) continue;
        return std::string("there is no kernel for ") + w->name + " of type " + ggml_type_name(w->type);
    }
    return "";
}

/// Of a gated feed-forward block, whose two inputs are multiplied together.
std::string why_no_ffn(const ggml_tensor* gate, const ggml_tensor* up, const ggml_tensor* down) {
    if (gate->type != up->type) return std::string(gate->name) + " and " + up->name + " are of different types";
    return why_no_product({gate, up, down});
}

std::string why_no_layer(const LayerWeights& w, const LayerHparams& layer, const Hparams& h, int64_t max_tokens) {
    const ggml_type gate_up = w.gate_up_exps->type, down = w.down_exps->type;
    if (!fits(expert_shape(h), static_cast<int>(max_tokens), gate_up, down)) {
        return std::string("there is no kernel for experts of ") + ggml_type_name(gate_up) + " and " +
               ggml_type_name(down) + " in this model's sizes";
    }
    if (layer.rope_dims != layer.head_dim || !fits(HeadShape{1, 1, static_cast<int>(layer.head_dim)})) {
        return "there is no kernel for heads of " + std::to_string(layer.head_dim) + " values, " +
               std::to_string(layer.rope_dims) + " of them rotated";
    }
    const std::string why = why_no_product({w.attn_q, w.attn_k, w.attn_v, w.attn_output});
    return why.empty() ? why_no_ffn(w.ffn_gate, w.ffn_up, w.ffn_down) : why;
}

}  // namespace

std::string why_no_card_layers(const Model& model, const std::string& device, int64_t max_tokens) {
    if (!would_run_on(device)) return "dgemma's CUDA kernels do not run on " + device;
    if (max_tokens > kMaxPassRows) return "passes are longer than " + std::to_string(kMaxPassRows) + " tokens";
    const ModelWeights& w = model.weights();
    std::string why = why_no_ffn(w.self_cond_gate, w.self_cond_up, w.self_cond_down);
    if (why.empty()) why = why_no_product({w.head});
    for (size_t i = 0; why.empty() && i < w.layers.size(); ++i) {
        why = why_no_layer(w.layers[i], model.hparams().layers[i], model.hparams(), max_tokens);
    }
    const int64_t hidden = model.hparams().hidden;
    if (why.empty() && !fits_rows(static_cast<int>(hidden))) {
        why = "rows of " + std::to_string(hidden) + " values are wider than " + std::to_string(kMostHidden);
    }
    return why;
}

}  // namespace dgemma::cuda
