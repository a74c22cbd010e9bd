// A group of 32 values of a ProductRows, by one warp.
#pragma once

#include "cuda/block.cuh"
#include "cuda/product_rows.h"

namespace dgemma::cuda {

/// Where value i of a group lies in it (ProductRows).
__device__ inline int place_in_group(int i) { return i / 4 % 4 * 8 + i / 16 * 4 + i % 4; }

/// Lane i has value i of the group; q is where the group begins.
__device__ inline void store_int8_group(float x, int8_t* q, GroupScale* scale) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    // The largest size as the largest bits: those of an infinity or of no number are larger than any other.
    unsigned bits = __float_as_uint(fabsf(x));
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
        const unsigned other = shuffle_xor(bits, lanes);
        bits = other > bits ? other : bits;
    }
    const float most = __uint_as_float(bits), inverse = most > 0 ? 127.0f / most : 0.0f, d = most / 127.0f;
    const int rounded = __float2int_rn(x * inverse);
    int sum = rounded;
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) sum += shuffle_xor(sum, lanes);
    q[place_in_group(lane)] = static_cast<int8_t>(rounded);
    if (lane == 0) *scale = {d, d * static_cast<float>(sum)};
}

/// Lane i has value i of the group; groups are counted through all rows.
__device__ inline void store_group(float x, const ProductRows& rows, int64_t group) {
    const int64_t first = group * kGroupValues;
    if (rows.arithmetic == Arithmetic::kInt8) {
        store_int8_group(x, reinterpret_cast<int8_t*>(rows.values) + first, rows.scales + group);
    } else {
        const int place = place_in_group(static_cast<int>(threadIdx.x % kWarp));
        reinterpret_cast<__nv_bfloat16*>(rows.values)[first + place] = __float2bfloat16(x);
    }
}

}  // namespace dgemma::cuda
