// Probabilities times embedding rows in 8 bits: the dense part of self-conditioning.
//
// The sum runs over the vocabulary, so here tokens are grouped, 32 at a time, where the other products group a row's
// columns. A row's probabilities have one F32 scale for a group, a / 255 for the largest a: they are not negative, so
// that the unsigned side of the processor's dot product (VNNI) takes them as they are. The embedding's values, from
// whatever type, are rounded again with one scale for a group and column, A / 127 for the largest size A. The sum of a
// group is exact and is added to the result in F32. So a group moves a result by at most
//
//     A (32 a / 510 + P / 254),    P: the sum of its probabilities.
#pragma once

#include <cstdint>

#include "cpu/int8_rows.h"

namespace dgemma {

constexpr int64_t kStrip = 64;  // columns of the embedding that are multiplied at a time

/// Whether this processor has a kernel for it.
bool has_group_product();

/// 32 tokens by 64 columns.
struct alignas(64) TokenGroup {
    int8_t q[kGroup / 4][kStrip][4];  // four tokens' values of a column side by side
    float d[kStrip];
};

/// All rows' probabilities of 32 tokens, in 8 bits.
struct ProbabilityGroup {
    const uint8_t* q;  // [C, 32]
    const float* d;    // [C]
};

/// From 32 rows of floats, `stride` floats apart. Where a value is infinite or not a number, so is its column's d.
void quantise_tokens(const float* rows, int64_t stride, TokenGroup& to);

/// `count` probabilities, at most 32, to 32 values, the missing ones zero; returns d, not a number where one is none.
float quantise_probabilities(const float* p, int64_t count, uint8_t* q);

/// sums[r][c] += p.d[r] * tokens.d[c] * sum over the 32 tokens k of p.q[r][k] * tokens.q[k][c], for those n of the rows
/// that are given; sums: [C, 64]. What is computed for a row does not depend on the others.
void multiply_group(const TokenGroup& tokens, const ProbabilityGroup& p, const int32_t* rows, int64_t n, float* sums);

}  // namespace dgemma
