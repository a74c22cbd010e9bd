// Activations as 8-bit rows: what the CPU's integer products multiply weights by.
//
// Each group of 32 values has a scale of its own, d = max |x| / 127 in F32, so the rounding error of a value is at most
// d / 2. The values are stored with 128 added: the processor's product takes unsigned times signed, and the weights are
// the signed side.
//
//     [K] uint8: q + 128    [K / 32] float: d    [K / 32] float: d * (sum of the group's q)
#pragma once

#include <cstdint>

namespace dgemma {

constexpr int64_t kGroup = 32;

struct Int8Row {
    const uint8_t* q;
    const float* d;
    const float* d_sum;
};

/// Bytes of a row of k values; k is a multiple of 32.
constexpr int64_t int8_row_bytes(int64_t k) { return k + 2 * k / kGroup * static_cast<int64_t>(sizeof(float)); }

inline Int8Row int8_row(const uint8_t* row, int64_t k) {
    const auto* d = reinterpret_cast<const float*>(row + k);
    return {row, d, d + k / kGroup};
}

/// Writes group `group` of a row of k values from 32 floats. Where one is infinite or not a number, so is d.
void quantise_group(const float* x, uint8_t* row, int64_t k, int64_t group);

/// A whole row.
void quantise_row(const float* x, uint8_t* row, int64_t k);

}  // namespace dgemma
