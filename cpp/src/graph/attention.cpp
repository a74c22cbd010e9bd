#include "cpu/attention.h"

#include "graph/layer.h"

namespace dgemma {
namespace {

ggml_tensor* build_rope(const GraphScope& g, const LayerHparams& layer, const LayerWeights& w, ggml_tensor* x) {
    return ggml_rope_ext(g.ctx, x, g.inputs.layers[static_cast<size_t>(w.device)].positions, w.rope_freqs,
                         layer.rope_dims, GGML_ROPE_TYPE_NEOX,
                         /*n_ctx_orig=*/0, layer.rope_base, /*freq_scale=*/1, /*ext_factor=*/0, /*attn_factor=*/1,
                         /*beta_fast=*/0, /*beta_slow=*/0);
}

/// A cache tensor [hd * kv, cells] as attention reads it: [hd, keys, kv].
ggml_tensor* view_heads(const GraphScope& g, const LayerHparams& layer, ggml_tensor* cells, int64_t keys) {
    return ggml_view_3d(g.ctx, cells, layer.head_dim, keys, layer.kv_heads, cells->nb[1],
                        ggml_row_size(cells->type, layer.head_dim), 0);
}

/// ggml's attention of q [hd, heads, n] over k and v [hd, keys, kv]: [hd, heads, padded_queries(n)].
ggml_tensor* build_ggml_attention(const GraphScope& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v,
                                  ggml_tensor* mask) {
    // At least 64 queries: below that ggml-cpu takes another path, which accumulates F16 values in F16, and with one
    // query splits the keys by thread, so that the result would depend on the number of threads.
    const int64_t n = q->ne[2], padded = padded_queries(n);
    if (padded > n) q = ggml_pad(g.ctx, q, 0, 0, static_cast<int>(padded - n), 0);
    ggml_tensor* attention = ggml_flash_attn_ext(g.ctx, ggml_permute(g.ctx, q, 0, 2, 1, 3), k, v, mask, /*scale=*/1.0f,
                                                 /*max_bias=*/0.0f, /*logit_softcap=*/0.0f);
    ggml_prec_set_acc(attention, GGML_PREC_F32);
    return attention;
}

}  // namespace

Projections build_projections(const GraphScope& g, const LayerWeights& w, ggml_tensor* x) {
    ProductInput normed(g, build_norm(g, x, w.attn_norm));
    Projections made{normed.times(w.attn_q), normed.times(w.attn_k), nullptr};
    made.v = w.attn_v == nullptr ? made.k : normed.times(w.attn_v);
    return made;
}

KvCache::Layer build_kv_write(const GraphScope& g, const LayerWeights& w, size_t i, const Projections& x) {
    const LayerHparams& layer = g.h.layers[i];
    const int64_t row = layer.head_dim * layer.kv_heads;
    const auto heads = [&](ggml_tensor* t) {  // [hd * kv, n] -> [hd, kv, n]
        return ggml_reshape_3d(g.ctx, t, layer.head_dim, layer.kv_heads, g.shape.n_tokens);
    };
    ggml_tensor* k = build_rope(g, layer, w, build_norm(g, heads(x.k), w.attn_k_norm));
    ggml_tensor* v = build_norm(g, heads(x.v), nullptr);

    const KvCache::Layer& cache = g.cache.layer(i);
    const LayerInputs& inputs = g.inputs.layers[static_cast<size_t>(w.device)];
    ggml_tensor* cells = layer.sliding ? inputs.ring_cells : inputs.full_cells;
    const auto write = [&](ggml_tensor* to, ggml_tensor* from) {
        return ggml_set_rows(g.ctx, to, ggml_reshape_2d(g.ctx, from, row, g.shape.n_tokens), cells);
    };
    return {write(cache.k, k), write(cache.v, v)};
}

ggml_tensor* build_attention(const GraphScope& g, const LayerWeights& w, size_t i, const Projections& x) {
    const LayerHparams& layer = g.h.layers[i];
    ggml_tensor* q = ggml_reshape_3d(g.ctx, x.q, layer.head_dim, g.h.heads, g.shape.n_tokens);
    q = build_rope(g, layer, w, build_norm(g, q, w.attn_q_norm));
    return build_mixing(g, w, i, q, build_kv_write(g, w, i, x));
}

ggml_tensor* build_mixing(const GraphScope& g, const LayerWeights& w, size_t i, ggml_tensor* q,
                          const KvCache::Layer& written) {
    const LayerHparams& layer = g.h.layers[i];
    const LayerInputs& inputs = g.inputs.layers[static_cast<size_t>(w.device)];
    const int64_t keys = layer.sliding ? g.shape.ring_keys : g.shape.full_keys;
    ggml_tensor *k = view_heads(g, layer, written.k, keys), *v = view_heads(g, layer, written.v, keys);
    ggml_tensor* mask = layer.sliding ? inputs.ring_mask : inputs.full_mask;
    const bool own = !g.exact && !on_card(g, w.attn_output) && has_cpu_attention(layer.head_dim, k->type);
    return own ? build_cpu_attention(g.ctx, q, k, v, mask, g.pieces) : build_ggml_attention(g, q, k, v, mask);
}

}  // namespace dgemma
