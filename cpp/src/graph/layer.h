// One transformer layer as ggml nodes: the same for both passes but for the layer scalar and what the masks let it see.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <vector>

#include "cpu/pieces.h"
#include "graph/masks.h"
#include "graph/token_inputs.h"
#include "model/model.h"
#include "session/kv_cache.h"

namespace dgemma {

/// What the layers of one device read besides weights and cache. It depends on n_past alone and stays from run to run,
/// on the device itself: the scheduler would copy it there anew for each run.
struct LayerInputs {
    ggml_tensor* positions;   // [n] I32
    ggml_tensor* full_cells;  // [n] I64: where full layers write
    ggml_tensor* ring_cells;  // [n] I64: where sliding layers write
    ggml_tensor* full_mask;   // [full_keys, padded n] F16
    ggml_tensor* ring_mask;   // [ring_keys, padded n] F16
};

/// The tensors that a pass reads besides weights and cache.
struct PassInputs {
    TokenInputs tokens;
    std::vector<LayerInputs> layers;  // by device
};

/// What every node builder needs. `x` below is always [hidden, n] F32.
struct GraphScope {
    ggml_context* ctx;
    ggml_cgraph* graph;
    const Hparams& h;
    const PassShape& shape;
    const PassInputs& inputs;
    const KvCache& cache;
    const Devices& devices;
    ggml_backend_sched_t sched;
    Pieces& pieces;  // of our own operations on the CPU
    bool as_card;    // for measuring: as if every weight lay on a card
    bool exact;  // no fused operation that rounds differently, and each product with a weight is a MUL_MAT (_ID) node
};

/// Activations [k, n] for one product or several: where a weight is multiplied on the CPU by our own kernel
/// (cpu/products.h), they are quantised once for all of them.
class ProductInput {
  public:
    ProductInput(const GraphScope& g, ggml_tensor* x) : g_(g), x_(x) {}
    /// weight [k, rows] times x: [rows, n].
    ggml_tensor* times(ggml_tensor* weight);

  private:
    const GraphScope& g_;
    ggml_tensor* x_;
    ggml_tensor* int8_rows_ = nullptr;
};

/// Whether a weight is multiplied on a card, where ggml's fused operations are F32 and our own products are not.
bool on_card(const GraphScope& g, const ggml_tensor* weight);

/// RMS norm over the columns, times `weight` unless null.
ggml_tensor* build_norm(const GraphScope& g, ggml_tensor* x, ggml_tensor* weight);

/// gelu_tanh(gate) * up. `fused`: through ggml's own operation, F32 on GPUs.
ggml_tensor* build_gelu_gate(ggml_context* ctx, ggml_tensor* gate, ggml_tensor* up, bool fused);

/// weight times x: [rows, n].
ggml_tensor* build_product(const GraphScope& g, ggml_tensor* weight, ggml_tensor* x);

/// What attention is made of: products of a layer's normed input. In full layers, which have no projection of values, v
/// is k, before its norm and rotation.
struct Projections {
    ggml_tensor* q;      // [hd * heads, n]
    ggml_tensor *k, *v;  // [hd * kv, n]
};
Projections build_projections(const GraphScope& g, const LayerWeights& w, ggml_tensor* x);

/// Writes keys and values to layer i's cache; returns the cache's tensors with the write done.
KvCache::Layer build_kv_write(const GraphScope& g, const LayerWeights& w, size_t i, const Projections& x);

/// Layer i's attention over the cache, before the product with attn_output: [hd, heads, n], or more than n rows of it.
ggml_tensor* build_attention(const GraphScope& g, const LayerWeights& w, size_t i, const Projections& x);

/// The same from queries [hd, heads, n], normed and rotated, where the cache has the keys and values already.
ggml_tensor* build_mixing(const GraphScope& g, const LayerWeights& w, size_t i, ggml_tensor* q,
                          const KvCache::Layer& written);

/// The mixture of experts, [hidden, n]: routed on the raw residual, computed on its norm.
ggml_tensor* build_experts(const GraphScope& g, const LayerWeights& w, ggml_tensor* residual);

/// Gated feed-forward block with GELU.
ggml_tensor* build_ffn(const GraphScope& g, ggml_tensor* gate, ggml_tensor* up, ggml_tensor* down, ggml_tensor* x);

ggml_tensor* build_layer(const GraphScope& g, const LayerWeights& w, size_t i, ggml_tensor* x);

}  // namespace dgemma
