#include "cuda/expert_launches.h"

namespace dgemma::cuda {

std::vector<ExpertLaunch> launches_of(const CardExperts& card, const ExpertPass& pass) {
    const bool is_bf16 = pass.rows.arithmetic == Arithmetic::kBf16;
    const Routes routes = card.routes();
    const PairOrder order = card.order();
    const ProductRows gated = card.gated();
    float* products = card.products();
    return {
        {"choose_experts",
         [=](const Stream& s) { route_tokens(pass.shape, pass.n, pass.logits, pass.expert_scale, routes, s); }},
        {"order_pairs", [=](const Stream& s) { sort_pairs(pass.shape, pass.n, routes.experts, order, s); }},
        {"round_groups", [=](const Stream& s) { round_rows(pass.x, pass.n, pass.shape.hidden, pass.rows, s); }},
        {is_bf16 ? "gate_up_bf16" : "gate_up_tile",
         [=](const Stream& s) { multiply_gate_up(pass.shape, pass.n, pass.gate_up, order, pass.rows, gated, s); }},
        {is_bf16 ? "down_bf16" : "down_tile",
         [=](const Stream& s) { multiply_down(pass.shape, pass.n, pass.down, order, gated, products, s); }},
        {"combine_vectors",
         [=](const Stream& s) { combine_pairs(pass.shape, pass.n, routes.weights, products, pass.sums, s); }},
    };
}

}  // namespace dgemma::cuda
