// A Q4_K block (unpack_avx512.cpp draws it) of 16 rows at once, a lane for each row.
#include "cpu/panel_avx512.h"

namespace dgemma {
namespace {

/// 16 bytes of each of 16 rows as four registers of one dword of every row.
void transpose_headers(const uint8_t* rows, int64_t stride, __m512i out[4]) {
    __m512i quarter[4];  // rows j, j + 4, j + 8, j + 12
    for (int j = 0; j < 4; ++j) {
        const auto at = [&](int row) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + row * stride)); };
        __m512i four = _mm512_castsi128_si512(at(j));
        four = _mm512_inserti32x4(four, at(j + 4), 1);
        four = _mm512_inserti32x4(four, at(j + 8), 2);
        quarter[j] = _mm512_inserti32x4(four, at(j + 12), 3);
    }
    const __m512i low01 = _mm512_unpacklo_epi32(quarter[0], quarter[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(quarter[2], quarter[3]);
    const __m512i high01 = _mm512_unpackhi_epi32(quarter[0], quarter[1]);
    const __m512i high23 = _mm512_unpackhi_epi32(quarter[2], quarter[3]);
    out[0] = _mm512_unpacklo_epi64(low01, low23);
    out[1] = _mm512_unpackhi_epi64(low01, low23);
    out[2] = _mm512_unpacklo_epi64(high01, high23);
    out[3] = _mm512_unpackhi_epi64(high01, high23);
}

/// Bits shift … shift + n - 1 of every lane, n the ones of `mask`.
__m512i bits(__m512i words, int shift, int mask) {
    return _mm512_and_si512(_mm512_srl_epi32(words, _mm_cvtsi32_si128(shift)), _mm512_set1_epi32(mask));
}

void place_scales(const uint8_t* blocks, int64_t stride, int half, Panel& panel) {
    __m512i words[4];  // d and d_min, low bits of scales, of minima, the others' low bits
    transpose_headers(blocks, stride, words);
    const __m512 d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words[0]));
    const __m512 d_min = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words[0], 16)));
    const auto place = [&](float* to, __m512 factor, __m512i value) {
        _mm512_store_ps(to, _mm512_mul_ps(factor, _mm512_cvtepi32_ps(value)));
    };
    for (int g = 0; g < 4; ++g) {
        const auto high = [&](__m512i low, __m512i top) {
            return _mm512_or_si512(low, _mm512_slli_epi32(bits(top, 8 * g + 6, 3), 4));
        };
        place(panel.scales[g][half], d, bits(words[1], 8 * g, 63));
        place(panel.mins[g][half], d_min, bits(words[2], 8 * g, 63));
        place(panel.scales[g + 4][half], d, high(bits(words[3], 8 * g, 15), words[1]));
        place(panel.mins[g + 4][half], d_min, high(bits(words[3], 8 * g + 4, 15), words[2]));
    }
}

}  // namespace

void place_q4_k(const uint8_t* blocks, int64_t stride, int half, Panel& panel) {
    place_scales(blocks, stride, half, panel);
    const __m512i nibble = _mm512_set1_epi8(15), minus_offset = _mm512_set1_epi8(static_cast<char>(128));
    for (int pair = 0; pair < 4; pair += 2) {
        __m512i dwords[16];
        transpose(reinterpret_cast<const int8_t*>(blocks + 16 + 32 * pair), stride, dwords);
        for (int p = 0; p < 2; ++p) {
            __m512i sums[2] = {};
            for (int i = 0; i < 8; ++i) {
                const __m512i both = dwords[8 * p + i];
                const __m512i low = _mm512_and_si512(both, nibble);
                const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
                _mm512_store_si512(panel.values[16 * (pair + p) + i][half], low);
                _mm512_store_si512(panel.values[16 * (pair + p) + 8 + i][half], high);
                // The values are the unsigned side here: 128 as a signed byte is -128.
                sums[0] = _mm512_dpbusd_epi32(sums[0], low, minus_offset);
                sums[1] = _mm512_dpbusd_epi32(sums[1], high, minus_offset);
            }
            for (int s = 0; s < 2; ++s) _mm512_store_si512(panel.starts[2 * (pair + p) + s][half], sums[s]);
        }
    }
}

}  // namespace dgemma
