// Rows of values as the tensor cores multiply weights by them.
#pragma once

#include <cstdint>

#include "cuda/card.h"

namespace dgemma::cuda {

constexpr int kMaxPassRows = 8192;  // of a pass: as many as n_batch may ask for (session/plan.cpp)
constexpr int kGroupValues = 32;    // of a row, that lie together; with 8 bits they share a scale

/// What the tensor cores multiply. 8 bits are twice as fast there, but every group of 32 needs a dozen instructions for
/// its scales, which is what bounds such a product. 16 bits need none: better where the tensor cores multiply BF16 with
/// F32 sums at their full rate (A100, H100, H200), not on GeForce cards, where they do so at a half.
enum class Arithmetic { kInt8, kBf16 };

/// value = d q, rounded to nearest; d = max |value| / 127 of its group. d_sum = d (sum of the group's q).
struct alignas(8) GroupScale {
    float d, d_sum;
};

/// Rows of k values, k a multiple of 32. A group's lie as the tensor cores take them: values 4j … 4j + 3 and
/// 16 + 4j … 16 + 4j + 3 are its 8j … 8j + 7.
struct ProductRows {
    Arithmetic arithmetic;
    uint8_t* values;     // [rows, k] of a signed byte each, or of a BF16; 16-byte aligned
    GroupScale* scales;  // [rows, k / 32] of 8-bit rows; null
};

/// Rows [n, k] of F32 in parts [shares, n, k], whose sum they are, in the shares' order: of a product whose columns
/// were shared out among blocks, because there are too few rows of weights for all multiprocessors.
struct SharedSums {
    const float* parts;
    int shares;
};

constexpr int64_t value_bytes(Arithmetic arithmetic) { return arithmetic == Arithmetic::kInt8 ? 1 : 2; }

/// x: [n, k] floats. Where one is infinite or not a number, an 8-bit group's d is so, or the BF16.
void round_rows(const float* x, int n, int k, const ProductRows& rows, const Stream& stream);

}  // namespace dgemma::cuda
