#include <cmath>

#include "cpu/products.h"
#include "graph/layer.h"
#include "graph/parts.h"

namespace dgemma {
namespace {

struct Routing {
    ggml_tensor* experts;  // [used, n] I32
    ggml_tensor* weights;  // [1, used, n]: the chosen probabilities, renormalised, times each expert's own scale
};

// On the raw residual: routing on a normed state is a known way to get stray tokens.
Routing build_routing(const GraphScope& g, const LayerWeights& w, ggml_tensor* residual) {
    const int64_t n = g.shape.n_tokens, used = g.h.experts_used;
    ggml_tensor* r = build_norm(g, residual, w.router_scale);
    r = ggml_scale(g.ctx, r, 1.0f / std::sqrt(static_cast<float>(g.h.hidden)));
    ggml_tensor* probs = ggml_soft_max(g.ctx, ggml_mul_mat(g.ctx, w.router, r));      // [experts, n]
    ggml_tensor* experts = ggml_argsort_top_k(g.ctx, probs, static_cast<int>(used));  // [used, n]
    end_part(experts, "router");

    const auto chosen = [&](ggml_tensor* values) {  // [experts, n] -> [used, n]
        ggml_tensor* rows = ggml_reshape_3d(g.ctx, values, 1, g.h.experts, n);
        return ggml_reshape_2d(g.ctx, ggml_get_rows(g.ctx, rows, experts), used, n);
    };
    ggml_tensor* total = ggml_sum_rows(g.ctx, chosen(probs));  // [1, n]
    ggml_tensor* scaled = chosen(ggml_mul(g.ctx, probs, w.expert_scale));
    return {experts, ggml_reshape_3d(g.ctx, ggml_div(g.ctx, scaled, total), 1, used, n)};
}

/// Our kernel unpacks an expert's weights once for all of its tokens: that needs a few tokens for each.
bool wants_cpu_experts(const GraphScope& g, const LayerWeights& w) {
    constexpr int64_t kLeastTokens = 3;
    return !g.exact && !on_card(g, w.gate_up_exps) && !on_card(g, w.down_exps) &&
           g.shape.n_tokens * g.h.experts_used >= kLeastTokens * g.h.experts && has_cpu_product(w.gate_up_exps) &&
           w.gate_up_exps->ne[1] % 64 == 0 && has_cpu_product(w.down_exps);
}

}  // namespace

ggml_tensor* build_experts(const GraphScope& g, const LayerWeights& w, ggml_tensor* residual) {
    const int64_t n = g.shape.n_tokens, used = g.h.experts_used, ffn = g.h.expert_ffn;
    const Routing routing = build_routing(g, w, residual);
    // Both before any product: where the experts lie elsewhere, each change of device costs a synchronisation.
    ggml_build_forward_expand(g.graph, routing.weights);
    ggml_tensor* normed = build_norm(g, residual, w.pre_ffw_norm_2);
    if (wants_cpu_experts(g, w)) {
        return build_cpu_experts(g.ctx, w.gate_up_exps, w.down_exps, build_int8_rows(g.ctx, normed, g.pieces),
                                 routing.experts, routing.weights, g.pieces);
    }
    // Where the experts lie elsewhere than their layer, only the sum travels, not what each expert adds to it: the
    // scheduler by itself would take the sum to the layer's card.
    const auto stay = [&](ggml_tensor* node) {
        if (!g.as_card) ggml_backend_sched_set_tensor_backend(g.sched, node, g.devices.holding(w.down_exps));
        return node;
    };
    ggml_tensor* x = ggml_reshape_3d(g.ctx, normed, g.h.hidden, 1, n);

    ggml_tensor* gate_up = ggml_mul_mat_id(g.ctx, w.gate_up_exps, x, routing.experts);  // [2 ffn, used, n]
    const auto half = [&](int64_t first) {
        return ggml_view_3d(g.ctx, gate_up, ffn, used, n, gate_up->nb[1], gate_up->nb[2], first * sizeof(float));
    };
    ggml_tensor* gated = build_gelu_gate(g.ctx, half(0), half(ffn),
                                         /*fused=*/on_card(g, w.gate_up_exps) && on_card(g, w.down_exps) && !g.exact);
    ggml_tensor* down = ggml_mul_mat_id(g.ctx, w.down_exps, gated, routing.experts);  // [hidden, used, n]
    down = stay(ggml_mul(g.ctx, down, routing.weights));

    ggml_tensor* sum = nullptr;
    for (int64_t k = 0; k < used; ++k) {
        ggml_tensor* one = ggml_view_2d(g.ctx, down, g.h.hidden, n, down->nb[2], static_cast<size_t>(k) * down->nb[1]);
        sum = sum == nullptr ? one : stay(ggml_add(g.ctx, sum, one));
    }
    return used == 1 ? ggml_cont(g.ctx, sum) : sum;
}

}  // namespace dgemma
