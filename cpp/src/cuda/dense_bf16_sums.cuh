// The end of a BF16 tile: the four shares of its sums, which lie in as many warps' registers, become one.
#pragma once

#include "cuda/dense_bf16_tile.cuh"

namespace dgemma::cuda {

constexpr int kSumTokens = kTileTokens / 2;

/// Of half of the tokens. Four more floats than rows to a token: the values that a warp writes at a time, of eight rows
/// and four even tokens, lie in banks of their own.
using Bf16Partials = float[kBf16Shares][kSumTokens][kBf16TileRows + 4];

/// The whole sum, always in the same order.
__device__ inline float sum_of(const Bf16Partials& partials, int token, int place) {
    float sum = partials[0][token][place];
#pragma unroll
    for (int share = 1; share < kBf16Shares; ++share) sum += partials[share][token][place];
    return sum;
}

/// place_of(eight, g): where row 8 eight + g of the tile goes; use(first, count): what becomes of the sums of tokens
/// first … first + count - 1 of the tile, which lie from token 0 on. The stages' memory may be that of `partials`.
template <typename PlaceOf, typename Use>
__device__ void sum_shares(const Bf16Sums& sums, int n_tokens, Bf16Partials& partials, PlaceOf place_of, Use use) {
    const Bf16Place at;
    constexpr int kMmas = kSumTokens / kTokensOfMma, kEights = kHalfRows / kRowsOfEight;
#pragma unroll
    for (int half = 0; half < kTileTokens / kSumTokens; ++half) {
        const int first = half * kSumTokens, left = n_tokens - first;
        if (left <= 0) return;
        __syncthreads();  // what lay here is read
#pragma unroll
        for (int i = 0; i < kBf16RowMmas * kMmas * 4; ++i) {
            const int r = i / (kMmas * 4), p = i / 4 % kMmas, eight = 2 * r + i % 4 / 2;
            const int token = p * kTokensOfMma + 2 * at.t + i % 2;
            partials[at.share][token][place_of(at.half * kEights + eight, at.g)] = sums[r][half * kMmas + p][i % 4];
        }
        __syncthreads();
        use(first, left < kSumTokens ? left : kSumTokens);
    }
}

}  // namespace dgemma::cuda
