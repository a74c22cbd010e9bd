#include "cpu/int8_rows.h"

#include <algorithm>
#include <cstring>

namespace dgemma {
namespace {

// Adding this leaves the nearest integer of a small float in the low bits, plus 128.
constexpr float kRoundTo128 = 12582912.0f + 128.0f;

}  // namespace

void quantise_group(const float* x, uint8_t* row, int64_t k, int64_t group) {
    // The largest size as the largest bits, which compilers know how to find many values at a time; those of an
    // infinity or of no number are larger than any other.
    uint32_t most_bits = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        most_bits = std::max(most_bits, bits & 0x7fffffffu);
    }
    float most;
    std::memcpy(&most, &most_bits, sizeof most);
    const float d = most / 127.0f, inverse = most > 0 ? 127.0f / most : 0.0f;
    uint8_t* q = row + group * kGroup;
    int32_t sum = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
        const float shifted = x[i] * inverse + kRoundTo128;
        uint32_t bits;
        std::memcpy(&bits, &shifted, sizeof bits);
        q[i] = static_cast<uint8_t>(bits);
        sum += q[i];
    }
    const float d_sum = d * static_cast<float>(sum - 128 * kGroup);
    uint8_t* scales = row + k + group * static_cast<int64_t>(sizeof d);
    std::memcpy(scales, &d, sizeof d);
    std::memcpy(scales + k / kGroup * static_cast<int64_t>(sizeof d), &d_sum, sizeof d_sum);
}

void quantise_row(const float* x, uint8_t* row, int64_t k) {
    for (int64_t group = 0; group < k / kGroup; ++group) quantise_group(x + group * kGroup, row, k, group);
}

}  // namespace dgemma
