#include "denoise/rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "denoise/vec_math.h"

namespace dgemma {
namespace {

// Sums are kept in this many lanes, so that a compiler may use SIMD without being allowed to reorder floats.
constexpr int kLanes = 16;
// Sums of float32 terms are carried to double after this many.
constexpr int64_t kBlock = 1024;

float max_of(const float* row, int64_t n) {
    float lanes[kLanes];
    std::fill_n(lanes, kLanes, -std::numeric_limits<float>::infinity());
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (int l = 0; l < kLanes; ++l) lanes[l] = row[i + l] > lanes[l] ? row[i + l] : lanes[l];
    }
    float best = *std::max_element(lanes, lanes + kLanes);
    for (; i < n; ++i) best = std::max(best, row[i]);
    return best;
}

struct Sums {
    double mass = 0;      // sum of e^(z - max)
    double weighted = 0;  // sum of e^(z - max) (z - max)
};

/// A token of logit -infinity has no mass: 0 times this, not 0 times infinity.
float clamped(float d) { return d < -88.0f ? -88.0f : d; }

Sums block_sums(const float* row, int64_t n, float max) {
    float mass[kLanes] = {}, weighted[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (int l = 0; l < kLanes; ++l) {
            const float d = row[i + l] - max, e = fast_exp(d);
            mass[l] += e;
            weighted[l] += e * clamped(d);
        }
    }
    const int64_t rest = n % kLanes;
    for (int64_t l = 0; l < rest; ++l) {
        const float d = row[i + l] - max, e = fast_exp(d);
        mass[l] += e;
        weighted[l] += e * clamped(d);
    }
    Sums sums;
    for (int l = 0; l < kLanes; ++l) {
        sums.mass += mass[l];
        sums.weighted += weighted[l];
    }
    return sums;
}

}  // namespace

void soft_cap_row(float* row, int64_t n, float cap) {
    for (int64_t i = 0; i < n; ++i) row[i] = cap * fast_tanh(row[i] / cap);
}

RowSummary temper_row(float* row, int64_t n, float temperature) {
    for (int64_t i = 0; i < n; ++i) row[i] /= temperature;
    RowSummary summary{};
    summary.max = max_of(row, n);
    summary.argmax = static_cast<int32_t>(std::find(row, row + n, summary.max) - row);
    double weighted = 0;
    for (int64_t i = 0; i < n; i += kBlock) {
        const Sums sums = block_sums(row + i, std::min(kBlock, n - i), summary.max);
        summary.total += sums.mass;
        weighted += sums.weighted;
    }
    summary.entropy = std::max(0.0, std::log(summary.total) - weighted / summary.total);
    if (std::isnan(summary.total)) summary.entropy = summary.total;
    return summary;
}

int32_t draw_token(const float* row, int64_t n, const RowSummary& summary, double u) {
    const double target = u * summary.total;
    double before = 0;
    int64_t start = 0;
    for (; start + kBlock < n; start += kBlock) {
        const double mass = block_sums(row + start, kBlock, summary.max).mass;
        if (before + mass > target) break;
        before += mass;
    }
    // Rounding may leave the target just above the last block's end: then the last token with any mass is the answer.
    int64_t last = summary.argmax;
    for (int64_t i = start; i < std::min(start + kBlock, n); ++i) {
        const float e = fast_exp(row[i] - summary.max);
        before += e;
        if (before > target) return static_cast<int32_t>(i);
        if (e > 0) last = i;
    }
    return static_cast<int32_t>(last);
}

void softmax_row(float* row, int64_t n) {
    const float max = max_of(row, n);
    double total = 0;
    for (int64_t i = 0; i < n; i += kBlock) total += block_sums(row + i, std::min(kBlock, n - i), max).mass;
    const float inverse = static_cast<float>(1.0 / total);
    for (int64_t i = 0; i < n; ++i) row[i] = fast_exp(row[i] - max) * inverse;
}

}  // namespace dgemma
