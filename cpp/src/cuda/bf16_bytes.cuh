// Bytes of weights as what the tensor cores multiply as BF16, in three instructions for two of them.
//
// The bits 0 … 255 of a BF16 are the numbers 0 … 255 times 2^-133: subnormal ones below 128, and the first normal ones
// have the same step. So a byte with a zero byte above it is its number already, and one multiplication and addition
// makes it a weight. The scale that does so is too large for BF16 where weights are; so the weights are made 2^-32 of
// their size, and what they are multiplied to is brought back by kBytesUnit. A scale below 2^26 stays finite then, and
// one of Q4_K is below 2^22.
#pragma once

#include "cuda/expert_weights.cuh"

namespace dgemma::cuda {

constexpr float kBytesUnit = 0x1p32f, kBytesScale = 0x1p101f, kBytesMinimum = -0x1p-32f;

/// What makes bytes weights: scale and minus minimum as BF16, the scale in the low half. Both are rounded to nearest,
/// and so is each weight: errors of 2^-8 of the scale's part, the minimum and the weight at most. Without a minimum the
/// bytes are signed ones plus 128, which is exact: 128 times the rounded scale is a BF16 too.
template <bool kHasMinimum>
__device__ unsigned bytes_scale(const RowScale& row) {
    const float minimum = kHasMinimum ? row.minimum * kBytesMinimum : row.scale * (128 * kBytesMinimum);
    return bf16_pair(row.scale * kBytesScale, minimum);
}

/// The four bytes of a word, in their order, 2^-32 of their size.
__device__ inline void scale_bytes(unsigned word, unsigned row, unsigned (&pairs)[2]) {
    pairs[0] = scale_bf16_pair(__byte_perm(word, 0, 0x4140u), row);
    pairs[1] = scale_bf16_pair(__byte_perm(word, 0, 0x4342u), row);
}

/// What multiply_bf16() takes of two rows, g and g + 8, of a group: the first 16 of its columns in the order of
/// ProductRows, then the others. Of the values of a token's row it takes the same thread's 16 bytes, x and y, then z
/// and w.
__device__ inline void scale_group(const uint2& first, const uint2& second, unsigned first_row, unsigned second_row,
                                   unsigned (&a)[2][4]) {
    const uint2 words[2] = {first, second};
    const unsigned rows[2] = {first_row, second_row};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        unsigned pairs[2][2];
        scale_bytes(words[r].x, rows[r], pairs[0]);
        scale_bytes(words[r].y, rows[r], pairs[1]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            a[half][r] = pairs[half][0];
            a[half][2 + r] = pairs[half][1];
        }
    }
}

}  // namespace dgemma::cuda
