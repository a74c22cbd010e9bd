#include "quantize/scale_search.h"

#include <cmath>

namespace dgemma {
namespace {

constexpr int kOffsetValues = 32, kSymmetricValues = 16;
constexpr float kNothing = 1e-15f;  // ggml's: sub-blocks below are zero

/// How much an error in each value counts: its size and the sub-block's root mean square.
void offset_weights(const Floats x[kOffsetValues], Floats weights[kOffsetValues]) {
    Floats squares{};
    for (int i = 0; i < kOffsetValues; ++i) squares += x[i] * x[i];
    Floats size;
    for (int lane = 0; lane < kLanes; ++lane) size[lane] = std::sqrt(squares[lane] / kOffsetValues);
    for (int i = 0; i < kOffsetValues; ++i) weights[i] = size + absolute(x[i]);
}

/// Weighted sums over the values of each sub-block.
struct Sums {
    Floats w, wx;
};

Sums sum_up(const Floats x[kOffsetValues], const Floats weights[kOffsetValues]) {
    Sums sums{weights[0], weights[0] * x[0]};
    for (int i = 1; i < kOffsetValues; ++i) {
        sums.w += weights[i];
        sums.wx += weights[i] * x[i];
    }
    return sums;
}

Floats weighted_error(const Floats x[kOffsetValues], const Floats weights[kOffsetValues], const Floats q[kOffsetValues],
                      const Floats& scale, const Floats& lowest) {
    Floats error{};
    for (int i = 0; i < kOffsetValues; ++i) {
        const Floats difference = scale * q[i] + lowest - x[i];
        error += weights[i] * (difference * difference);
    }
    return error;
}

/// Scale and lowest value that fit given quants best, by least squares; lowest may not be above zero.
struct Fit {
    Floats scale, lowest;
    Ints exists;
};

Fit fit(const Floats x[kOffsetValues], const Floats weights[kOffsetValues], const Sums& sums,
        const Floats q[kOffsetValues]) {
    Floats sum_q{}, sum_qq{}, sum_qx{};
    for (int i = 0; i < kOffsetValues; ++i) {
        const Floats wq = weights[i] * q[i];
        sum_q += wq;
        sum_qq += wq * q[i];
        sum_qx += wq * x[i];
    }
    const Floats determinant = sums.w * sum_qq - sum_q * sum_q;
    const Floats scale = (sums.w * sum_qx - sums.wx * sum_q) / determinant;
    const Floats lowest = (sum_qq * sums.wx - sum_q * sum_qx) / determinant;
    const Ints above = lowest > 0;
    return {above ? sum_qx / sum_qq : scale, above ? Floats{} : lowest, determinant > 0};
}

}  // namespace

OffsetScales search_offset_scales(const Floats x[kOffsetValues], const OffsetSearch& search) {
    Floats weights[kOffsetValues], q[kOffsetValues];
    offset_weights(x, weights);
    const Sums sums = sum_up(x, weights);
    Floats lowest = x[0], highest = x[0];
    for (int i = 1; i < kOffsetValues; ++i) {
        lowest = x[i] < lowest ? x[i] : lowest;
        highest = x[i] > highest ? x[i] : highest;
    }
    lowest = lowest > 0 ? Floats{} : lowest;
    const Ints flat = highest == lowest;

    const auto quantize = [&](const Floats& factor) {
        for (int i = 0; i < kOffsetValues; ++i) {
            q[i] = to_floats(clamp(nearest(factor * (x[i] - lowest)), 0, search.q_max));
        }
    };
    const auto q_max = static_cast<float>(search.q_max);
    const Floats factor = q_max / (highest - lowest);
    quantize(factor);
    OffsetScales best{1 / factor, Floats{}, factor, lowest};
    Floats best_error = weighted_error(x, weights, q, best.scale, lowest);
    for (int step = 0; step <= search.n_steps; ++step) {
        const Floats candidate = (search.first_step + 0.1f * static_cast<float>(step) + q_max) / (highest - lowest);
        quantize(candidate);
        const Fit found = fit(x, weights, sums, q);
        const Floats error = weighted_error(x, weights, q, found.scale, found.lowest);
        const Ints better = found.exists & (error < best_error);
        best_error = better ? error : best_error;
        best.scale = better ? found.scale : best.scale;
        best.q_factor = better ? candidate : best.q_factor;
        best.q_origin = better ? lowest : best.q_origin;
        lowest = better ? found.lowest : lowest;  // the next candidate starts from here
    }
    best.scale = flat ? Floats{} : best.scale;
    best.q_factor = flat ? Floats{} : best.q_factor;
    best.offset = -lowest;
    return best;
}

SymmetricScales search_symmetric_scales(const Floats x[kSymmetricValues]) {
    constexpr int kHalf = 32;
    constexpr float kHalfFloat = kHalf;
    Floats largest{}, size{};
    for (int i = 0; i < kSymmetricValues; ++i) {
        const Ints larger = absolute(x[i]) > size;
        largest = larger ? x[i] : largest;
        size = larger ? absolute(x[i]) : size;
    }
    const Ints nothing = size < kNothing;

    Floats sum_qx, sum_qq;
    const auto sum_up = [&](const Floats& factor) {
        sum_qx = sum_qq = Floats{};
        for (int i = 0; i < kSymmetricValues; ++i) {
            const Floats q = to_floats(clamp(nearest(factor * x[i]), -kHalf, kHalf - 1));
            const Floats weight = x[i] * x[i];
            sum_qx += weight * x[i] * q;
            sum_qq += weight * q * q;
        }
    };
    SymmetricScales best{Floats{}, -kHalfFloat / largest};
    sum_up(best.q_factor);
    best.scale = sum_qq != 0 ? sum_qx / sum_qq : Floats{};
    Floats best_fit = best.scale * sum_qx;
    for (int step = -9; step <= 9; ++step) {
        if (step == 0) continue;
        const Floats candidate = -(kHalfFloat + 0.1f * static_cast<float>(step)) / largest;
        sum_up(candidate);
        const Ints better = (sum_qq > 0) & (sum_qx * sum_qx > best_fit * sum_qq);
        best.q_factor = better ? candidate : best.q_factor;
        best.scale = better ? sum_qx / sum_qq : best.scale;
        best_fit = better ? best.scale * sum_qx : best_fit;
    }
    best.scale = nothing ? Floats{} : best.scale;
    best.q_factor = nothing ? Floats{} : best.q_factor;
    return best;
}

}  // namespace dgemma
