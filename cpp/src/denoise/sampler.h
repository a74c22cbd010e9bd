// One step of the entropy-bound sampler (generation_diffusion_gemma.py, EntropyBoundSampler; arXiv 2505.24857).
#pragma once

#include <vector>

#include "dgemma/dgemma.h"
#include "support/thread_pool.h"

namespace dgemma {

struct LogitShape {
    int canvas, vocab;
    float soft_cap;  // of raw logits; 0: they are already capped
};

struct SamplerInputs {
    double temperature;
    double entropy_bound;
    const double* u;       // [C] in [0, 1): where in the cumulative distribution each position draws
    const int32_t* noise;  // [C] fresh tokens for the positions that are not accepted
};

/// Reads `logits` [C, V] once and leaves in them z = capped logits / temperature, which the next step conditions on.
/// Error if a logit is not a number.
SamplerStep sample_canvas(float* logits, const LogitShape& shape, const SamplerInputs& inputs, ThreadPool& pool);

/// Positions in the order of their entropy while the sum of the strictly earlier entropies is at most the bound, so at
/// least one. Equal entropies go in the order of position.
std::vector<uint8_t> accept_positions(const std::vector<double>& entropy, double entropy_bound);

}  // namespace dgemma
