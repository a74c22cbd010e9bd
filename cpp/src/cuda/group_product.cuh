// The product of one group of 32 columns by a warp: 16 rows of weights times 8 tokens' rows of 8 bits.
#pragma once

#include "cuda/block.cuh"
#include "cuda/expert_weights.cuh"
#include "cuda/product_rows.h"

namespace dgemma::cuda {

constexpr int kRowsOfMma = 16, kRowsOfEight = 8;
constexpr int kVectorBytes = 16;  // of an asynchronous copy

/// The bytes between the last multiple of 16 and an address.
__device__ inline int lead_of(const uint8_t* at) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(at) % kVectorBytes);
}

/// The same value, which all lanes have, in a form that the compiler knows to be the same for all.
__device__ inline int uniform(int value) { return __shfl_sync(kAllLanes, value, 0); }

// Whole numbers below 2^22 in the last bits of a float of this size: they are read without being converted.
constexpr int kBaseBits = 0x4b400000;
constexpr float kBase = 12582912.0f;  // 3 * 2^22

/// A whole number times a row's scale, rounded once: a scale has no more than 22 significant bits (of a half times one
/// of 8 bits), so that the base's part is exact.
__device__ inline float scaled(int product, float scale) {
    return fmaf(__int_as_float(product), scale, -kBase * scale);
}

/// The sum of products, less the minimum's part, of one group: rows g and g + 8 of the weights, tokens 2t and 2t + 1.
template <bool kHasMinimum>
__device__ void add_product(const uint2 (&rows)[2], const RowScale (&row_scales)[2], uint2 values, float4 scales,
                            float (&sums)[4]) {
    int products[4] = {kBaseBits, kBaseBits, kBaseBits, kBaseBits};
    multiply_int8({rows[0].x, rows[1].x, rows[0].y, rows[1].y}, values, products);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const RowScale& row = row_scales[i / 2];
        sums[i] += scaled(products[i], row.scale) * (i % 2 == 0 ? scales.x : scales.z);
        if (kHasMinimum) sums[i] -= row.minimum * (i % 2 == 0 ? scales.y : scales.w);
    }
}

}  // namespace dgemma::cuda
