// How weights become what the tensor cores multiply as BF16: whole numbers, as expert_weights.cuh and dense_weights.cuh
// take them apart, times their scale, less their minimum.
//
// Scale and minimum are rounded to BF16 and so is the result: an error of 2^-8 of each at most, a fraction of what
// 8-bit rows of activations bring.
#pragma once

#include "cuda/expert_weights.cuh"

namespace dgemma::cuda {

/// Each twice, for both values of a word.
struct alignas(8) Bf16Scale {
    unsigned scale, minus_minimum;
};

__device__ inline Bf16Scale bf16_scale(const RowScale& row) {
    return {bf16_pair(row.scale, row.scale), bf16_pair(-row.minimum, -row.minimum)};
}

constexpr unsigned kBf16One = 0x3f803f80u, kBf16MinusOne = 0xbf80bf80u, kBf16Minus128 = 0xc300c300u;

/// 128 + q as two BF16 each of the four bytes q < 128 of a word: BF16's 8 bits hold the numbers 128 … 255 as their
/// last 7.
__device__ inline void spread_bytes(unsigned word, unsigned (&pairs)[2]) {
    pairs[0] = __byte_perm(word, 0x43434343u, 0x4140u);
    pairs[1] = __byte_perm(word, 0x43434343u, 0x4342u);
}

/// scale q - minimum of the four bytes of a word, in their order. With a minimum they are numbers below 128, without
/// one they are signed.
template <bool kHasMinimum>
__device__ void unpack_bf16(unsigned word, const Bf16Scale& row, unsigned (&pairs)[2]) {
    if (kHasMinimum) {
        spread_bytes(word, pairs);
#pragma unroll
        for (unsigned& pair : pairs) {
            pair = fma_bf16_pair(fma_bf16_pair(pair, kBf16One, kBf16Minus128), row.scale, row.minus_minimum);
        }
        return;
    }
    // The first bit counts -128: 128 + the others less 128 or 256.
    unsigned signs[2];
    spread_bytes(word & 0x7f7f7f7fu, pairs);
    spread_bytes(word & 0x80808080u, signs);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        constexpr unsigned kMinusZero = 0x80008000u;
        pairs[i] = fma_bf16_pair(fma_bf16_pair(signs[i], kBf16MinusOne, pairs[i]), row.scale, kMinusZero);
    }
}

/// What multiply_bf16() takes of two rows, g and g + 8, of a group: the first 16 of its columns in the order of
/// ProductRows, then the others. Of the values of a token's row it takes the same thread's 16 bytes, x and y, then z
/// and w.
template <bool kHasMinimum>
__device__ void unpack_bf16(const uint2 (&rows)[2], const Bf16Scale (&scales)[2], unsigned (&a)[2][4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        unsigned pairs[2][2];
        unpack_bf16<kHasMinimum>(rows[r].x, scales[r], pairs[0]);
        unpack_bf16<kHasMinimum>(rows[r].y, scales[r], pairs[1]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            a[half][r] = pairs[half][0];
            a[half][2 + r] = pairs[half][1];
        }
    }
}

}  // namespace dgemma::cuda
