#include "denoise/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "denoise/rows.h"

namespace dgemma {

std::vector<uint8_t> accept_positions(const std::vector<double>& entropy, double entropy_bound) {
    std::vector<size_t> order(entropy.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return entropy[a] < entropy[b]; });
    std::vector<uint8_t> accepted(entropy.size(), 0);
    double earlier = 0;
    for (const size_t position : order) {
        if (earlier > entropy_bound) break;
        accepted[position] = 1;
        earlier += entropy[position];
    }
    return accepted;
}

void throw_not_a_number(int position) {
    throw Error("the logits of canvas position " + std::to_string(position) +
                " are not numbers (NaN); the weights are damaged or overflow this device's arithmetic");
}

SamplerStep sample_canvas(float* logits, const LogitShape& shape, const SamplerInputs& inputs, ThreadPool& pool) {
    const size_t n = static_cast<size_t>(shape.canvas);
    SamplerStep step;
    step.argmax.resize(n);
    step.sampled.resize(n);
    step.entropy.resize(n);
    std::vector<double> entropy(n);
    pool.run(shape.canvas, [&](int position) {
        const size_t i = static_cast<size_t>(position);
        float* row = logits + static_cast<int64_t>(position) * shape.vocab;
        if (shape.soft_cap > 0) soft_cap_row(row, shape.vocab, shape.soft_cap);
        const RowSummary summary = temper_row(row, shape.vocab, static_cast<float>(inputs.temperature));
        entropy[i] = summary.entropy;
        step.argmax[i] = summary.argmax;
        step.entropy[i] = static_cast<float>(summary.entropy);
        step.sampled[i] = std::isnan(summary.total) ? 0 : draw_token(row, shape.vocab, summary, inputs.u[i]);
    });
    for (size_t i = 0; i < n; ++i) {
        if (std::isnan(entropy[i])) throw_not_a_number(static_cast<int>(i));
    }
    step.accepted = accept_positions(entropy, inputs.entropy_bound);
    step.next_canvas.resize(n);
    for (size_t i = 0; i < n; ++i) step.next_canvas[i] = step.accepted[i] ? step.sampled[i] : inputs.noise[i];
    return step;
}

SamplerStep entropy_bound_step(const float* logits, int canvas_length, int n_vocab, double temperature,
                               double entropy_bound, const double* u, const int32_t* noise) {
    std::vector<float> z(logits, logits + static_cast<int64_t>(canvas_length) * n_vocab);
    ThreadPool pool(1);
    return sample_canvas(z.data(), {canvas_length, n_vocab, /*soft_cap=*/0}, {temperature, entropy_bound, u, noise},
                         pool);
}

}  // namespace dgemma
