#include "cuda/layer_memory.h"

#include <algorithm>

#include "cuda/dense.h"

namespace dgemma::cuda {
namespace {

size_t size(int64_t n) { return static_cast<size_t>(n); }

/// Of the widest layer, as others may have more heads or longer ones.
template <typename Width>
int64_t widest(const Model& model, Width width) {
    int64_t most = 0;
    for (const LayerWeights& w : model.weights().layers) most = std::max(most, width(w));
    return most;
}

int64_t attention_width(const Model& model) {
    return widest(model, [](const LayerWeights& w) { return w.attn_output->ne[0]; });
}

int64_t key_width(const Model& model) {
    return widest(model, [](const LayerWeights& w) { return w.attn_k->ne[1]; });
}

int64_t ffn(const Model& model) { return model.weights().self_cond_gate->ne[1]; }

}  // namespace

ExpertShape expert_shape(const Hparams& h) {
    return {static_cast<int>(h.experts), static_cast<int>(h.experts_used), static_cast<int>(h.hidden),
            static_cast<int>(h.expert_ffn)};
}

LayerMemory::LayerMemory(const Model& model, Arithmetic arithmetic, int64_t n)
    : next(arithmetic, n, model.hparams().hidden),
      dense(arithmetic, n, model.hparams().hidden),
      experts(arithmetic, n, model.hparams().hidden),
      attention(arithmetic, n, attention_width(model)),
      gated(arithmetic, n, ffn(model)),
      residual(size(n * model.hparams().hidden)),
      product(residual.size() * size(most_shares(arithmetic))),
      keys(size(n * key_width(model))),
      values(keys.size()),
      router_rows(residual.size()),
      router_logits(size(n * model.hparams().experts)) {}

uint64_t LayerMemory::n_bytes(const Model& model, Arithmetic arithmetic, int64_t n) {
    const Hparams& h = model.hparams();
    const auto rows = [&](int64_t k) { return CardRows::n_bytes(arithmetic, n, k); };
    const uint64_t floats =
        size(n * ((2 + most_shares(arithmetic)) * h.hidden + 2 * key_width(model) + h.experts)) * sizeof(float);
    return 3 * rows(h.hidden) + rows(attention_width(model)) + rows(ffn(model)) + floats;
}

}  // namespace dgemma::cuda
