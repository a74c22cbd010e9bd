// The tensor cores' product of BF16 values, for tests: the lanes show each other what they have, and each sums what is
// its own. nvidia/bf16_mma.h says who has what.
#pragma once

#include <ggml.h>

#include <cmath>
#include <cstdint>

#include "int8_mma.h"

namespace dgemma::cuda {

/// One of the two BF16 values of a word: 0 the lower.
inline float of_pair(uint32_t pair, int which) {
    return ggml_bf16_to_fp32({static_cast<uint16_t>(pair >> (16 * which))});
}

inline unsigned bf16_pair(float low, float high) {
    return ggml_fp32_to_bf16(low).bits | static_cast<unsigned>(ggml_fp32_to_bf16(high).bits) << 16;
}

inline unsigned scale_bf16_pair(unsigned a, unsigned row) {
    const auto one = [&](int i) { return std::fma(of_pair(a, i), of_pair(row, 0), of_pair(row, 1)); };
    return bf16_pair(one(0), one(1));
}

template <typename Pair>
void multiply_bf16(const unsigned (&a)[4], Pair b, float (&sums)[4]) {
    const uint32_t ours[6] = {a[0], a[1], a[2], a[3], b.x, b.y};
    const auto& all = show_warp(ours);
    const int g = lane() / 4, t = lane() % 4;
    for (int i = 0; i < 4; ++i) {
        const int column = 2 * t + i % 2, high_rows = i / 2;
        for (int k = 0; k < 16; ++k) {
            const int from = k % 8 / 2, high_columns = k / 8;
            sums[i] += of_pair(all[(4 * g + from) * 6 + 2 * high_columns + high_rows], k % 2) *
                       of_pair(all[(4 * column + from) * 6 + 4 + high_columns], k % 2);
        }
    }
}

}  // namespace dgemma::cuda
