// Blocks of 256 values (unpack_avx512.cpp draws them) of 8 rows at once.
#include "cpu/panel_avx2.h"

namespace dgemma::avx2 {
namespace {

/// Bits shift … shift + n - 1 of every lane, n the ones of `mask`.
__m256i bits(__m256i words, int shift, int mask) {
    return _mm256_and_si256(_mm256_srl_epi32(words, _mm_cvtsi32_si128(shift)), _mm256_set1_epi32(mask));
}

__m256 scaled(__m256 factor, __m256i value) { return _mm256_mul_ps(factor, _mm256_cvtepi32_ps(value)); }

/// Scales and minima of Q4_K and Q5_K. words: d and d_min, low bits of scales, of minima, the others' low bits.
void place_scales(const __m256i words[4], int quarter, Panel& panel) {
    const __m256 d = halves(words[0]), d_min = halves(_mm256_srli_epi32(words[0], 16));
    for (int g = 0; g < 4; ++g) {
        const auto high = [&](__m256i low, __m256i top) {
            return _mm256_or_si256(low, _mm256_slli_epi32(bits(top, 8 * g + 6, 3), 4));
        };
        _mm256_store_ps(panel.scales[g][quarter], scaled(d, bits(words[1], 8 * g, 63)));
        _mm256_store_ps(panel.mins[g][quarter], scaled(d_min, bits(words[2], 8 * g, 63)));
        _mm256_store_ps(panel.scales[g + 4][quarter], scaled(d, high(bits(words[3], 8 * g, 15), words[1])));
        _mm256_store_ps(panel.mins[g + 4][quarter], scaled(d_min, high(bits(words[3], 8 * g + 4, 15), words[2])));
    }
}

/// 144 bytes: [16 of scales] [128 of nibbles: 32 bytes hold two groups of 32 values].
void place_q4_k(const uint8_t* blocks, int64_t stride, int64_t /*count*/, int quarter, Panel& panel) {
    __m256i scales[4];
    load_dwords(blocks, stride, 16, scales);
    place_scales(scales, quarter, panel);
    for (int pair = 0; pair < 4; ++pair) {
        __m256i both[8], low[8], high[8];
        load_dwords(blocks + 16 + 32 * pair, stride, 32, both);
        for (int i = 0; i < 8; ++i) {
            low[i] = and_bytes(both[i], 15);
            high[i] = and_bytes(_mm256_srli_epi16(both[i], 4), 15);
        }
        place_group<FourUnsigned>(low, 2 * pair, quarter, panel);
        place_group<FourUnsigned>(high, 2 * pair + 1, quarter, panel);
    }
}

/// 176 bytes: [16 of scales] [32: bit g is the fifth bit of a value of group g] [128 of nibbles].
void place_q5_k(const uint8_t* blocks, int64_t stride, int64_t /*count*/, int quarter, Panel& panel) {
    __m256i start[12];
    load_dwords(blocks, stride, 48, start);
    place_scales(start, quarter, panel);
    for (int pair = 0; pair < 4; ++pair) {
        __m256i both[8], low[8], high[8];
        load_dwords(blocks + 48 + 32 * pair, stride, 32, both);
        for (int i = 0; i < 8; ++i) {
            const __m256i fifth = _mm256_srl_epi32(start[4 + i], _mm_cvtsi32_si128(2 * pair));
            low[i] = _mm256_or_si256(and_bytes(both[i], 15), and_bytes(_mm256_slli_epi16(fifth, 4), 16));
            high[i] = _mm256_or_si256(and_bytes(_mm256_srli_epi16(both[i], 4), 15),
                                      and_bytes(_mm256_slli_epi16(fifth, 3), 16));
        }
        place_group<FiveUnsigned>(low, 2 * pair, quarter, panel);
        place_group<FiveUnsigned>(high, 2 * pair + 1, quarter, panel);
    }
}

/// 210 bytes: [128: low four bits] [64: high two bits] [16 signed scales, each for 16 values] [d: F16], w = d s (q -
/// 32). In each half of 128 values, 32 bytes of high bits serve four groups of 32.
void place_q6_k(const uint8_t* blocks, int64_t stride, int64_t /*count*/, int quarter, Panel& panel) {
    __m256i dwords[52], end[4];
    load_dwords(blocks, stride, 208, dwords);
    load_dwords(blocks + 194, stride, 16, end);
    const __m256 d = halves(_mm256_srli_epi32(end[3], 16));
    for (int s = 0; s < 16; ++s) {
        const __m256i top = _mm256_sll_epi32(dwords[48 + s / 4], _mm_cvtsi32_si128(24 - 8 * (s % 4)));
        _mm256_store_ps(panel.scales[s][quarter], scaled(d, _mm256_srai_epi32(top, 24)));
    }
    for (int g = 0; g < 8; ++g) {  // the group's low bits are in a nibble of low, its high bits at 2 (g % 4)
        const __m256i *low = dwords + 16 * (g / 4) + 8 * (g % 2), *high = dwords + 32 + 8 * (g / 4);
        const __m128i nibble = _mm_cvtsi32_si128(g % 4 / 2 * 4), pair = _mm_cvtsi32_si128(2 * (g % 4));
        __m256i values[kGroupDwords];
        for (int i = 0; i < 8; ++i) {
            const __m256i four = and_bytes(_mm256_srl_epi16(low[i], nibble), 15);
            const __m256i two = and_bytes(_mm256_slli_epi16(_mm256_srl_epi32(high[i], pair), 4), 48);
            values[i] = _mm256_sub_epi8(_mm256_or_si256(four, two), bytes_of(32));
        }
        place_group<SixSigned>(values, g, quarter, panel);
    }
}

}  // namespace

Placer find_placer_256(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_K:
            return place_q4_k;
        case GGML_TYPE_Q5_K:
            return place_q5_k;
        case GGML_TYPE_Q6_K:
            return place_q6_k;
        default:
            return nullptr;
    }
}

}  // namespace dgemma::avx2
