// One layer's experts alone, from floats to weighted sums, for tests and timings: in a layer the kernels before and
// after them round their input and join their products (layer_rows.h).
#pragma once

#include <functional>
#include <vector>

#include "cuda/card_experts.h"

namespace dgemma::cuda {

/// All on the card and 16-byte aligned: the router's logits [n, experts], the experts' own scales [experts], weights
/// [experts, 2 ffn, hidden] and [experts, hidden, ffn], input x [n, hidden], which becomes `rows`, and the weighted
/// sums [n, hidden].
struct ExpertPass {
    ExpertShape shape;
    int n;
    const float *logits, *expert_scale;
    ExpertWeights gate_up, down;
    const float* x;
    ProductRows rows;
    float* sums;
};

/// One kernel of a pass.
struct ExpertLaunch {
    const char* kernel;
    std::function<void(const Stream&)> queue;
};

/// Its six kernels, in order. Each may be queued again: none changes what it reads.
std::vector<ExpertLaunch> launches_of(const CardExperts& card, const ExpertPass& pass);

}  // namespace dgemma::cuda
