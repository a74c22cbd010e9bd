// One step of the entropy-bound sampler (generation_diffusion_gemma.py, EntropyBoundSampler; arXiv 2505.24857).
#pragma once

#include <vector>

#include "denoise/philox.h"
#include "dgemma/dgemma.h"
#include "support/thread_pool.h"

namespace dgemma {

struct LogitShape {
    int canvas, vocab;
    float soft_cap;  // of raw logits; 0: they are already capped
};

/// What a step asks of the sampler; its random numbers are those of its site.
struct StepRequest {
    double temperature;
    double entropy_bound;
    StepSite site;
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

/// The Error for a canvas position whose logits are NaN.
[[noreturn]] void throw_not_a_number(int position);

/// Positions in the order of their entropy while the sum of the strictly earlier entropies is at most the bound, so at
/// least one. Equal entropies go in the order of position.
std::vector<uint8_t> accept_positions(const std::vector<double>& entropy, double entropy_bound);

}  // namespace dgemma
