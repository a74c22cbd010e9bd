// What the AVX2 kernel and those who fill its panels share.
//
// AVX2 multiplies unsigned by signed bytes and adds the products in pairs, into 16 bits, where the sum must fit. An
// activation is at most 255, so pairs of several dwords fit that are added before they are widened: a pair of four-bit
// weights is at most 2 * 255 * 15 = 7650, and eight of them take 61200 of the 65536 numbers of 16 bits, those of five
// bits half as many pairs, those of six a quarter. Where weights are never negative the sum begins at -32768. Weights
// of eight bits are two digits, w = 16 high + low, high from -8 to 7 and low from 0 to 15, each of which is like four
// bits.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/panel.h"
#include "cpu/transpose_avx2.h"

namespace dgemma::avx2 {

constexpr int64_t kLanes = 8;                                     // rows of a register
constexpr int kQuarters = static_cast<int>(kPanelRows / kLanes);  // of a panel's rows
constexpr int kGroupDwords = static_cast<int>(kGroup) / 4;        // of values
constexpr int64_t kPanelGroups = kPanelValues / kGroup;           // of values

/// How a type's weights are summed.
struct FourSigned {
    static constexpr int kSubs = 1;   // scales of a group of 32 values
    static constexpr int kChunk = 8;  // dwords whose pairs are added in 16 bits
    static constexpr int kDigits = 1;
    static constexpr bool kUnsigned = false;  // and with a minimum
};
struct FourUnsigned : FourSigned {
    static constexpr bool kUnsigned = true;
};
struct FiveSigned : FourSigned {
    static constexpr int kChunk = 4;
};
struct FiveUnsigned : FourUnsigned {
    static constexpr int kChunk = 4;
};
struct SixSigned : FourSigned {
    static constexpr int kSubs = 2, kChunk = 2;
};
struct EightSigned : FourSigned {
    static constexpr int kDigits = 2;  // the high one first
};

/// 32 rows of at most 256 values, unpacked.
struct alignas(64) Panel {
    int8_t values[2 * kPanelValues / 4][kQuarters][kLanes][4];  // by group, then digit: four values of each row
    int32_t starts[2 * kPanelGroups][kQuarters][kLanes];        // what the sums of products leave out, by sub
    float scales[2 * kPanelGroups][kQuarters][kLanes];          // by sub
    float mins[kPanelGroups][kQuarters][kLanes];                // where the type has them
};

/// Fills a quarter of a panel, starts, scales and minima included, with `count` values of 8 rows, `stride` bytes apart;
/// count is a multiple of the type's block and at most 256.
using Placer = void (*)(const uint8_t* blocks, int64_t stride, int64_t count, int quarter, Panel& panel);

/// Of the types with blocks of 32 values, and of those with 256; null for any other.
Placer find_placer_32(ggml_type type);
Placer find_placer_256(ggml_type type);

// -------------------------------------------------------------------------------- for placers

inline void store(int32_t* to, __m256i x) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), x); }
inline void store(int8_t (*to)[4], __m256i x) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), x); }

inline __m256i bytes_of(int value) { return _mm256_set1_epi8(static_cast<char>(value)); }
inline __m256i and_bytes(__m256i x, int mask) { return _mm256_and_si256(x, bytes_of(mask)); }

/// F16 in the low half of every dword.
inline __m256 halves(__m256i dwords) {
    const __m256i low = _mm256_and_si256(dwords, _mm256_set1_epi32(0xffff));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}

/// Stores eight dwords of values, a group of 32, and the starts that belong to it.
template <typename Form>
void place_group(const __m256i values[kGroupDwords], int64_t group, int quarter, Panel& panel) {
    constexpr int kDwords = kGroupDwords / Form::kSubs;
    // Activations are stored with 128 added, and unsigned sums of pairs begin at -32768, two in a dword.
    constexpr int kFromZero = Form::kUnsigned ? kDwords / Form::kChunk : Form::kDigits - 1;
    auto* const to = panel.values + group * kGroupDwords * Form::kDigits;
    for (int sub = 0; sub < Form::kSubs; ++sub) {
        __m256i sum = _mm256_setzero_si256();
        for (int i = sub * kDwords; i < (sub + 1) * kDwords; ++i) {
            sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(bytes_of(1), values[i]));
            if constexpr (Form::kDigits == 1) {
                store(to[i][quarter], values[i]);
            } else {
                const __m256i high = _mm256_xor_si256(and_bytes(_mm256_srli_epi16(values[i], 4), 15), bytes_of(8));
                store(to[i][quarter], _mm256_sub_epi8(high, bytes_of(8)));
                store(to[kGroupDwords + i][quarter], and_bytes(values[i], 15));
            }
        }
        const __m256i start = _mm256_madd_epi16(sum, _mm256_set1_epi16(-128));
        store(panel.starts[group * Form::kSubs + sub][quarter],
              _mm256_add_epi32(start, _mm256_set1_epi32(kFromZero * 65536)));
    }
}

}  // namespace dgemma::avx2
