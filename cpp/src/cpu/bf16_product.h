// Probabilities times embedding rows with 16-bit factors: the dense part of self-conditioning.
//
// Both factors are rounded to BF16 (relative 2^-8), products and sums are F32. So a result moves by at most about
// 2^-7 * sum |p e|, and by far less as a rule, because the roundings do not lean to one side.
#pragma once

#include <cstdint>

namespace dgemma {

/// Whether this processor multiplies BF16.
bool has_bf16_product();

/// panel: [depth, n] floats, n of them a row, to pairs [(depth + 1) / 2, n]: two consecutive rows' values in one word,
/// a missing one zero. n is a multiple of 16.
void pack_bf16_pairs(const float* panel, int64_t depth, int64_t n, uint32_t* pairs);

constexpr int64_t kBf16Rows = 6, kBf16Columns = 64, kBf16Depth = 64;  // of one call, at most

/// acc[r][c] += sum over k < depth of p[r][k] * e[k][c] for `rows` rows, given by pointers, and 64 columns. pairs: rows
/// of `stride` words.
void multiply_bf16_pairs(const float* const* p, int64_t rows, int64_t depth, const uint32_t* pairs, int64_t stride,
                         float* const* acc);

}  // namespace dgemma
