// What the AVX-512 kernel and those who fill its panels share.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/panel.h"
#include "cpu/transpose_avx512.h"
#include "cpu/unpack.h"

namespace dgemma {

constexpr int64_t kHalf = 16;  // rows of a register

/// 32 rows of at most 256 values, unpacked. `sub`: 16 or 32 values share a scale.
struct alignas(64) Panel {
    int8_t values[kPanelValues / 4][2][kHalf][4];  // four values of each row
    int32_t starts[kPanelValues / 16][2][kHalf];   // -128 * (sum of the values): the activations' offset, by sub
    float scales[kPanelValues / 16][2][kHalf];     // by sub
    float mins[kPanelValues / kGroup][2][kHalf];   // where the type has them
    int64_t sub;
    bool has_min;
};

/// Fills half a panel, starts, scales and minima included, with `count` values of 16 rows, `stride` bytes apart; count
/// is a multiple of the type's block and at most 256. Sixteen rows are taken apart at once, a lane for each: what is
/// packed is transposed first, when it is a half or a quarter of what it will be.
using Placer = void (*)(const uint8_t* blocks, int64_t stride, int64_t count, int half, Panel& panel);

/// Of the types with blocks of 32 values, and of those with 256; null for any other.
Placer find_placer_32(ggml_type type);
Placer find_placer_256(ggml_type type);

// -------------------------------------------------------------------------------- for placers

/// Stores eight dwords of values, a group of 32, and the starts that belong to it: kSubs of them, for as many scales.
/// kSigned: the values may be negative.
template <bool kSigned, int kSubs = 1>
void place_group(const __m512i values[8], int64_t group, int half, Panel& panel) {
    const __m512i offset = _mm512_set1_epi8(static_cast<char>(128)), zero = _mm512_setzero_si512();
    for (int sub = 0; sub < kSubs; ++sub) {
        __m512i sum = zero;
        for (int i = sub * 8 / kSubs; i < (sub + 1) * 8 / kSubs; ++i) {
            _mm512_store_si512(panel.values[8 * group + i][half], values[i]);
            // As the unsigned side of the product the offset is 128, as the signed side it is -128.
            sum = kSigned ? _mm512_dpbusd_epi32(sum, offset, values[i]) : _mm512_dpbusd_epi32(sum, values[i], offset);
        }
        _mm512_store_si512(panel.starts[kSubs * group + sub][half], kSigned ? _mm512_sub_epi32(zero, sum) : sum);
    }
}

/// F16 in the low half of every dword.
inline __m512 halves(__m512i dwords) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(dwords)); }

inline __m512i and_bytes(__m512i x, int mask) { return _mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(mask))); }

}  // namespace dgemma
