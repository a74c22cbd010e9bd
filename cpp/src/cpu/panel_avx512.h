// What the AVX-512 kernel and its unpackers share: the panel itself, and the transposition that fills it.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/panel.h"
#include "cpu/unpack.h"

namespace dgemma {

constexpr int64_t kHalf = 16;  // rows of a register

/// 32 rows of at most 256 values, unpacked. `sub`: 16 or 32 values share a scale.
struct alignas(64) Panel {
    int8_t values[kUnpacked / 4][2][kHalf][4];  // four values of each row
    int32_t starts[kUnpacked / 16][2][kHalf];   // -128 * (sum of the values): the activations' offset, by sub
    float scales[kUnpacked / 16][2][kHalf];     // by sub
    float mins[kUnpacked / kGroup][2][kHalf];   // where the type has them
    int64_t sub;
    bool has_min;
};

/// 16 rows of 16 dwords (64 bytes), `stride` bytes apart, to 16 registers of one dword of every row.
inline void transpose(const int8_t* rows, int64_t stride, __m512i out[16]) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(rows + i * stride);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    // a[4 q + d]: rows 4 q … 4 q + 3, dwords d, d + 4, d + 8, d + 12 by 128-bit lane.
    for (int d = 0; d < 4; ++d) {
        const __m512i low01 = _mm512_shuffle_i32x4(a[d], a[4 + d], 0x88),
                      low23 = _mm512_shuffle_i32x4(a[8 + d], a[12 + d], 0x88);
        const __m512i high01 = _mm512_shuffle_i32x4(a[d], a[4 + d], 0xDD),
                      high23 = _mm512_shuffle_i32x4(a[8 + d], a[12 + d], 0xDD);
        out[d] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        out[d + 8] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
        out[d + 4] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        out[d + 12] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
    }
}

/// Q4_K's 256 values of 16 rows, `stride` bytes apart, to their half of a panel, starts, scales and minima included.
/// Most of a Q4_K_M is of this type, so it is not unpacked row by row: what is packed is transposed first.
void place_q4_k(const uint8_t* blocks, int64_t stride, int half, Panel& panel);

}  // namespace dgemma
