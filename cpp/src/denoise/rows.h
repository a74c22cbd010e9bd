// One canvas position's logits, a row of n = vocabulary floats.
#pragma once

#include <cstdint>

namespace dgemma {

struct RowSummary {
    int32_t argmax;  // the first of equals
    float max;
    double total;    // sum of exp(z - max)
    double entropy;  // of softmax(z), nats
};

/// row = cap * tanh(row / cap), in float32 before any temperature (the reference's order).
void soft_cap_row(float* row, int64_t n, float cap);

/// row = row / temperature, in place, and what the sampler needs of the softmax of the result.
RowSummary temper_row(float* row, int64_t n, float temperature);

/// The first token whose cumulative softmax exceeds u in [0, 1).
int32_t draw_token(const float* row, int64_t n, const RowSummary& summary, double u);

/// row = softmax(row), in place.
void softmax_row(float* row, int64_t n);

}  // namespace dgemma
