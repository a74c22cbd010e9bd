#include "cuda/rope_turns.h"

#include <cmath>
#include <utility>

namespace dgemma::cuda {
namespace {

constexpr float kNoTurn = 1e-6f;  // below it the cosine rounds to 1, and the sine to the angle

size_t count(int64_t head_dim, int64_t n) { return static_cast<size_t>(n * head_dim / 2); }

std::vector<float> frequencies(const Rope& rope) {
    std::vector<float> found(count(rope.head_dim, 1));
    for (size_t i = 0; i < found.size(); ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(rope.head_dim);
        found[i] = static_cast<float>(std::pow(static_cast<double>(rope.base), exponent));
        if (!rope.factors.empty()) found[i] /= rope.factors[i];
    }
    return found;
}

}  // namespace

std::vector<Turn> rope_turns(const Rope& rope, int64_t first, int64_t n) {
    const std::vector<float> by_pair = frequencies(rope);
    std::vector<Turn> turns;
    turns.reserve(count(rope.head_dim, n));
    for (int64_t position = first; position < first + n; ++position) {
        for (const float frequency : by_pair) {
            const float angle = static_cast<float>(position) * frequency;
            // Most of a full layer's pairs are not rotated: their frequencies are divided by 1e30.
            turns.push_back(angle < kNoTurn ? Turn{1.0f, angle} : Turn{std::cos(angle), std::sin(angle)});
        }
    }
    return turns;
}

CardTurns::CardTurns(Rope rope, int64_t most_tokens)
    : rope_(std::move(rope)), turns_(count(rope_.head_dim, most_tokens) + 1) {}

uint64_t CardTurns::n_bytes(int64_t head_dim, int64_t most_tokens) {
    return (count(head_dim, most_tokens) + 1) * sizeof(Turn);
}

void CardTurns::prepare(int64_t first, int64_t n, const Stream& stream) {
    if (rope_.head_dim == 0 || (first == first_ && n == n_)) return;
    const std::vector<Turn> turns = rope_turns(rope_, first, n);
    stream.copy(turns_.data(), turns.data(), turns.size() * sizeof(Turn));
    stream.wait();
    first_ = first;
    n_ = n;
}

}  // namespace dgemma::cuda
