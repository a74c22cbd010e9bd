// The tensor cores' product of whole numbers, for tests: the lanes show each other what they have, and each sums what
// is its own. nvidia/int8_mma.h says who has what.
#pragma once

#include <cstdint>
#include <cstring>

#include "mma.h"

namespace dgemma::cuda {

/// `ours`: four words of a and two of b. Words 6 lane … of the result are those of that lane, until the warp's next
/// call.
const uint32_t (&show_warp(const uint32_t (&ours)[6]))[32 * 6];

template <typename Pair>
void multiply_int8(const unsigned (&a)[4], Pair b, int (&sums)[4]) {
    const uint32_t ours[6] = {a[0], a[1], a[2], a[3], b.x, b.y};
    const auto& all = show_warp(ours);
    const auto byte = [&](int lane, int word, int i) {
        return static_cast<int>(static_cast<int8_t>(all[lane * 6 + word] >> (8 * i)));
    };
    const int g = lane() / 4, t = lane() % 4;
    for (int i = 0; i < 4; ++i) {
        const int column = 2 * t + i % 2, high_rows = i / 2;
        for (int k = 0; k < 32; ++k) {
            const int from = k % 16 / 4, high_columns = k / 16;
            sums[i] += byte(4 * g + from, 2 * high_columns + high_rows, k % 4) *
                       byte(4 * column + from, 4 + high_columns, k % 4);
        }
    }
}

inline void multiply_int8(const unsigned (&a)[2], unsigned b, int (&sums)[4]) {
    struct Words {
        unsigned x, y;
    };
    multiply_int8({a[0], a[1], 0, 0}, Words{b, 0}, sums);
}

}  // namespace dgemma::cuda
