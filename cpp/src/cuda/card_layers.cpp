#include "cuda/card_layers.h"

#include <algorithm>
#include <optional>

#include "cuda/card_experts.h"
#include "cuda/dense.h"
#include "cuda/ggml_order.h"
#include "cuda/heads.h"
#include "cuda/layer_memory.h"
#include "cuda/layer_rows.h"
#include "cuda/masks.h"
#include "cuda/rope_turns.h"

namespace dgemma::cuda {
namespace {

ExpertWeights experts_of(const ggml_tensor* tensor) {
    return {tensor->type, static_cast<const uint8_t*>(tensor->data), static_cast<int64_t>(tensor->nb[1]),
            static_cast<int64_t>(tensor->nb[2])};
}

DenseWeight weight_of(const ggml_tensor* tensor) {
    return {tensor->type, static_cast<const uint8_t*>(tensor->data), static_cast<int64_t>(tensor->nb[1]),
            static_cast<int>(tensor->ne[1])};
}

const float* values(const ggml_tensor* tensor) { return static_cast<const float*>(tensor->data); }

/// The first layer that is sliding or full, as asked; null where there is none.
const LayerHparams* first_layer(const Hparams& h, bool sliding) {
    const auto found = std::find_if(h.layers.begin(), h.layers.end(),
                                    [&](const LayerHparams& layer) { return layer.sliding == sliding; });
    return found == h.layers.end() ? nullptr : &*found;
}

/// How those layers rotate; their frequencies' factors lie with the weights.
Rope rope_of(const Model& model, bool sliding) {
    const LayerHparams* layer = first_layer(model.hparams(), sliding);
    if (layer == nullptr) return {};
    Rope rope{layer->head_dim, layer->rope_base, {}};
    const auto i = static_cast<size_t>(layer - model.hparams().layers.data());
    if (const ggml_tensor* factors = model.weights().layers[i].rope_freqs; factors != nullptr) {
        rope.factors.resize(static_cast<size_t>(factors->ne[0]));
        ggml_backend_tensor_get(factors, rope.factors.data(), 0, ggml_nbytes(factors));
    }
    return rope;
}

uint64_t layers_bytes(const Model& model, int64_t n, Arithmetic arithmetic) {
    const Hparams& h = model.hparams();
    const auto turns = [&](bool sliding) {
        const LayerHparams* layer = first_layer(h, sliding);
        return CardTurns::n_bytes(layer == nullptr ? 0 : layer->head_dim, n);
    };
    return LayerMemory::n_bytes(model, arithmetic, n) + turns(true) + turns(false) +
           card_experts_bytes(expert_shape(h), static_cast<int>(n), arithmetic);
}

Arithmetic arithmetic_of(ggml_backend_t card) { return has_fast_bf16(card) ? Arithmetic::kBf16 : Arithmetic::kInt8; }

class CardLayers final : public OwnLayers {
  public:
    CardLayers(const Model& model, const KvCache& cache, ggml_backend_t card, int64_t most_tokens)
        : w_(model.weights()),
          h_(model.hparams()),
          cache_(cache),
          device_(device_name(card)),
          n_bytes_(layers_bytes(model, most_tokens, arithmetic_of(card))) {
        const Arithmetic arithmetic = arithmetic_of(card);
        use_card_of(w_.head->data);
        memory_.emplace(model, arithmetic, most_tokens);
        experts_.emplace(expert_shape(h_), static_cast<int>(most_tokens), arithmetic);
        sliding_turns_.emplace(rope_of(model, /*sliding=*/true), most_tokens);
        full_turns_.emplace(rope_of(model, /*sliding=*/false), most_tokens);
        order_.emplace(card);
        stream_.emplace(/*is_urgent=*/true);
        beside_.emplace();
    }

    void begin(const OwnPass& pass) override {
        enter();
        sliding_turns_->prepare(pass.n_past, pass.shape.n_tokens, *stream_);
        full_turns_->prepare(pass.n_past, pass.shape.n_tokens, *stream_);
        write_masks(pass);
        const float* norm = values(w_.layers.front().attn_norm);
        const int n = tokens(pass);
        if (pass.shape.pass == Pass::kEncoder) {
            norm_rows(pass.rows, norm, h_.rms_eps, memory_->next.get(), n, hidden(), *stream_);
        } else {
            norm_rows(pass.soft, values(w_.self_cond_pre_norm), h_.rms_eps, memory_->dense.get(), n, hidden(),
                      *stream_);
            const SharedSums made = feed_forward(w_.self_cond_gate, w_.self_cond_up, w_.self_cond_down, n, *stream_);
            begin_decoder(pass.rows, made, norm, h_.rms_eps, memory_->residual.data(), memory_->next.get(), n, hidden(),
                          *stream_);
            end_part(pass, "embedding");
        }
        project(pass, 0);
        order_->before_ggml(*stream_);
    }

    void go_on(const OwnPass& pass, size_t i) override {
        enter();
        finish_attention(pass, i);
        // The dense network and the experts read the same residual: beside the router's small kernels there is room.
        beside_->after(*stream_);
        route(pass, i);
        const LayerWeights& w = w_.layers[i];
        const SharedSums dense = feed_forward(w.ffn_gate, w.ffn_up, w.ffn_down, tokens(pass), *beside_);
        if (pass.ended) end_dense(pass);
        finish_experts(pass, i, dense);
        if (i + 1 < w_.layers.size()) {
            project(pass, i + 1);
        } else if (pass.shape.pass == Pass::kDecoder) {
            multiply({{weight_of(w_.head), pass.logits}}, memory_->next, w_.head->ne[0], tokens(pass), *stream_);
            end_part(pass, "head");
        }
        order_->before_ggml(*stream_);
    }

    void add_memory(MemoryUse& use) const override { use[device_]["compute"] += n_bytes_; }

  private:
    int hidden() const { return static_cast<int>(h_.hidden); }
    static int tokens(const OwnPass& pass) { return static_cast<int>(pass.shape.n_tokens); }

    void enter() const {
        use_card_of(w_.head->data);
        order_->after_ggml(*stream_);
    }

    void write_masks(const OwnPass& pass) const {
        const KvShape& kv = cache_.shape();
        const auto number = [](int64_t n) { return static_cast<int>(n); };
        MaskShape mask{number(pass.n_past),
                       tokens(pass),
                       number(padded_queries(pass.shape.n_tokens)),
                       number(pass.shape.full_keys),
                       number(kv.full_cells),
                       /*window=*/0,
                       pass.shape.pass == Pass::kEncoder};
        write_mask(mask, pass.full_mask, *stream_);
        mask.keys = number(pass.shape.ring_keys);
        mask.cells = number(kv.ring_cells);
        mask.window = number(h_.window);
        write_mask(mask, pass.ring_mask, *stream_);
    }

    void end_part(const OwnPass& pass, const char* part) const {
        if (!pass.ended) return;
        stream_->wait();
        pass.ended(part);
    }

    /// Parts are timed one after the other.
    void end_dense(const OwnPass& pass) const {
        stream_->after(*beside_);
        end_part(pass, "dense_ffn");
    }

    static void multiply(const std::vector<DenseProduct>& products, const CardRows& rows, int64_t k, int n,
                         const Stream& stream) {
        multiply_dense(products.data(), static_cast<int>(products.size()), rows.get(), n, static_cast<int>(k), stream);
    }

    /// What layer i's attention reads: queries, and keys and values in the cache.
    void project(const OwnPass& pass, size_t i) const {
        const LayerWeights& w = w_.layers[i];
        float *k = memory_->keys.data(), *v = w.attn_v == nullptr ? k : memory_->values.data();
        std::vector<DenseProduct> products{{weight_of(w.attn_k), k}};
        if (w.attn_v != nullptr) products.push_back({weight_of(w.attn_v), v});
        const bool is_last_write = pass.shape.pass == Pass::kEncoder && i + 1 == w_.layers.size();
        if (!is_last_write) products.push_back({weight_of(w.attn_q), pass.q});
        multiply(products, memory_->next, h_.hidden, tokens(pass), *stream_);

        const LayerHparams& layer = h_.layers[i];
        const KvCache::Layer& cache = cache_.layer(i);
        const int64_t cells = layer.sliding ? cache_.shape().ring_cells : cache_.shape().full_cells;
        const int heads = is_last_write ? 0 : static_cast<int>(h_.heads);
        place_heads({pass.q, k, v, values(w.attn_q_norm), values(w.attn_k_norm),
                     (layer.sliding ? sliding_turns_ : full_turns_)->data(), static_cast<uint16_t*>(cache.k->data),
                     static_cast<uint16_t*>(cache.v->data), pass.n_past % cells, cells},
                    {heads, static_cast<int>(layer.kv_heads), static_cast<int>(layer.head_dim)}, h_.rms_eps,
                    tokens(pass), *stream_);
        if (is_last_write) end_part(pass, "attention");
    }

    void finish_attention(const OwnPass& pass, size_t i) const {
        const LayerWeights& w = w_.layers[i];
        const auto width = static_cast<int>(w.attn_output->ne[0]);
        const int n = tokens(pass);
        round_rows(pass.attention, n, width, memory_->attention.get(), *stream_);
        const SharedSums attention = multiply_shared(weight_of(w.attn_output), memory_->product.data(),
                                                     memory_->attention.get(), n, width, *stream_);
        const bool is_first = i == 0 && pass.shape.pass == Pass::kEncoder;
        end_attention({is_first ? pass.rows : memory_->residual.data(), attention, values(w.post_attention_norm),
                       values(w.router_scale), values(w.ffn_norm), values(w.pre_ffw_norm_2), memory_->residual.data(),
                       memory_->router_rows.data(), memory_->dense.get(), memory_->experts.get()},
                      h_.rms_eps, n, hidden(), *stream_);
        end_part(pass, "attention");
    }

    void route(const OwnPass& pass, size_t i) const {
        const LayerWeights& w = w_.layers[i];
        multiply_router(values(w.router), memory_->router_rows.data(), memory_->router_logits.data(), tokens(pass),
                        static_cast<int>(h_.experts), hidden(), *stream_);
        experts_->route(tokens(pass), memory_->router_logits.data(), values(w.expert_scale), *stream_);
        end_part(pass, "router");
    }

    /// down (gelu(gate x) * (up x)), x the rows in `dense`.
    SharedSums feed_forward(const ggml_tensor* gate, const ggml_tensor* up, const ggml_tensor* down, int n,
                            const Stream& stream) const {
        multiply_gated(weight_of(gate), weight_of(up), memory_->dense.get(), memory_->gated.get(), n, hidden(), stream);
        return multiply_shared(weight_of(down), memory_->product.data(), memory_->gated.get(), n,
                               static_cast<int>(down->ne[0]), stream);
    }

    void finish_experts(const OwnPass& pass, size_t i, const SharedSums& dense) const {
        const LayerWeights& w = w_.layers[i];
        experts_->multiply(experts_of(w.gate_up_exps), experts_of(w.down_exps), tokens(pass), memory_->experts.get(),
                           *stream_);
        stream_->after(*beside_);
        const bool is_last = i + 1 == w_.layers.size();
        const ggml_tensor* next_norm = is_last ? w_.output_norm : w_.layers[i + 1].attn_norm;
        end_layer(
            {dense, experts_->products(), experts_->routes().weights, values(w.post_ffw_norm_1),
             values(w.post_ffw_norm_2), values(w.post_ffw_norm), values(next_norm), static_cast<int>(h_.experts_used),
             pass.shape.pass == Pass::kEncoder ? w.encoder_scale : w.decoder_scale, memory_->residual.data(),
             memory_->next.get()},
            h_.rms_eps, tokens(pass), hidden(), *stream_);
        end_part(pass, "experts");
    }

    const ModelWeights& w_;
    const Hparams& h_;
    const KvCache& cache_;
    std::string device_;
    uint64_t n_bytes_;
    std::optional<LayerMemory> memory_;  // these seven once the card is selected
    std::optional<CardExperts> experts_;
    std::optional<CardTurns> sliding_turns_, full_turns_;
    std::optional<GgmlOrder> order_;
    std::optional<Stream> beside_, stream_;  // the last: done with the memory above before it is freed
};

}  // namespace

uint64_t card_layers_bytes(const Model& model, int64_t max_tokens) {
    // Which card it is shows when it is started.
    return std::max(layers_bytes(model, max_tokens, Arithmetic::kInt8),
                    layers_bytes(model, max_tokens, Arithmetic::kBf16));
}

std::unique_ptr<OwnLayers> make_card_layers(const Model& model, const Devices& devices, const KvCache& cache,
                                            int64_t max_tokens) {
    ggml_backend_t card = devices.get(model.head_device());
    if (!runs_on(card)) {  // the plan knows that some card has code
        throw BackendError(device_name(card) +
                           ": dgemma's CUDA kernels were not built for this card; card_layers \"ggml\" does without, "
                           "and -DCMAKE_CUDA_ARCHITECTURES=native builds them");
    }
    return std::make_unique<CardLayers>(model, cache, card, max_tokens);
}

}  // namespace dgemma::cuda
