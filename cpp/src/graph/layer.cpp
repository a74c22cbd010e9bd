#include "graph/layer.h"

#include "cpu/norm.h"
#include "cpu/products.h"
#include "graph/parts.h"

namespace dgemma {
namespace {

// With fewer columns, unpacking a weight costs more than our kernel then gains on ggml's row by row products.
constexpr int64_t kLeastColumns = 16;

}  // namespace

ggml_tensor* ProductInput::times(ggml_tensor* weight) {
    if (g_.exact || g_.shape.n_tokens < kLeastColumns || on_card(g_, weight) || !has_cpu_product(weight)) {
        return ggml_mul_mat(g_.ctx, weight, x_);
    }
    if (int8_rows_ == nullptr) int8_rows_ = build_int8_rows(g_.ctx, x_, g_.pieces);
    return build_cpu_product(g_.ctx, weight, int8_rows_, g_.pieces);
}

bool on_card(const GraphScope& g, const ggml_tensor* weight) {
    return g.as_card || g.devices.holding(weight) != g.devices.cpu();
}

ggml_tensor* build_product(const GraphScope& g, ggml_tensor* weight, ggml_tensor* x) {
    return ProductInput(g, x).times(weight);
}

ggml_tensor* build_norm(const GraphScope& g, ggml_tensor* x, ggml_tensor* weight) {
    if (weight != nullptr && !g.exact && !on_card(g, weight)) return build_cpu_norm(g.ctx, x, weight, g.h.rms_eps);
    ggml_tensor* normed = ggml_rms_norm(g.ctx, x, g.h.rms_eps);
    return weight == nullptr ? normed : ggml_mul(g.ctx, normed, weight);
}

ggml_tensor* build_gelu_gate(ggml_context* ctx, ggml_tensor* gate, ggml_tensor* up, bool fused) {
    if (fused) return ggml_geglu_split(ctx, gate, up);
    // ggml-cpu's gelu goes through a 16-bit table, whose error flips expert routes. The same function from exact
    // operations: gelu_tanh(x) = x * sigmoid(z), z = x * d, d = 2 sqrt(2/pi) (1 + 0.044715 x^2), and since
    // silu(z) = z * sigmoid(z), gelu_tanh(x) * u = silu(z) * (u / d): silu is the one that ggml vectorises. d > 1.5.
    constexpr float k = 1.5957691216057308f;
    ggml_tensor* d = ggml_scale_bias(ctx, ggml_sqr(ctx, gate), k * 0.044715f, k);
    return ggml_swiglu_split(ctx, ggml_mul(ctx, d, gate), ggml_div(ctx, up, d));
}

ggml_tensor* build_ffn(const GraphScope& g, ggml_tensor* gate, ggml_tensor* up, ggml_tensor* down, ggml_tensor* x) {
    ProductInput input(g, x);
    ggml_tensor* gate_values = input.times(gate);
    const bool fused = on_card(g, gate) && on_card(g, down) && !g.exact;
    ggml_tensor* gated = build_gelu_gate(g.ctx, gate_values, input.times(up), fused);  // [ffn, n]
    return build_product(g, down, gated);
}

ggml_tensor* build_layer(const GraphScope& g, const LayerWeights& w, size_t i, ggml_tensor* x) {
    ggml_tensor* attention = build_attention(g, w, i, build_projections(g, w, x));
    const int64_t width = w.attn_output->ne[0];
    ggml_tensor* rows = ggml_view_2d(g.ctx, attention, width, g.shape.n_tokens, width * sizeof(float), 0);
    attention = build_product(g, w.attn_output, rows);
    ggml_tensor* residual = ggml_add(g.ctx, x, build_norm(g, attention, w.post_attention_norm));
    end_part(residual, "attention");

    ggml_tensor* dense = build_ffn(g, w.ffn_gate, w.ffn_up, w.ffn_down, build_norm(g, residual, w.ffn_norm));
    ggml_build_forward_expand(g.graph, end_part(dense, "dense_ffn"));
    ggml_tensor* experts = build_experts(g, w, residual);
    ggml_tensor* ffn =
        ggml_add(g.ctx, build_norm(g, dense, w.post_ffw_norm_1), build_norm(g, experts, w.post_ffw_norm_2));

    ggml_tensor* output = ggml_add(g.ctx, residual, build_norm(g, ffn, w.post_ffw_norm));
    output = ggml_scale(g.ctx, output, g.shape.pass == Pass::kEncoder ? w.encoder_scale : w.decoder_scale);
    return end_part(output, "experts");
}

}  // namespace dgemma
