#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "cpu/group_product.h"
#include "cpu/has_avx512.h"

namespace dgemma {
namespace {

constexpr int kRegisters = kStrip / 16;

/// The largest of sizes, by their bits: whatever is not a number is larger than every number.
__m512i size_bits(__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); }

/// levels / largest, or 0 where that is 0 or none.
__m512 inverse_of(__m512 largest, float levels) {
    const __mmask16 some = _mm512_cmp_ps_mask(largest, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_maskz_div_ps(some, _mm512_set1_ps(levels), largest);
}

/// 16 columns of four tokens, each token's values side by side, to four bytes a column.
__m512i interleave(__m512i t0, __m512i t1, __m512i t2, __m512i t3) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm512_shuffle_epi8(_mm512_packs_epi16(_mm512_packs_epi32(t0, t1), _mm512_packs_epi32(t2, t3)), order);
}

/// Keeps a value that was loaded in a register, as in panel_avx512.cpp.
__m512i held(__m512i value) {
    asm("" : "+v"(value));
    return value;
}

template <int kRows>
void multiply(const TokenGroup& tokens, const ProbabilityGroup& p, const int32_t* rows, float* sums) {
    __m512i dot[kRows][kRegisters];
    for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < kRegisters; ++c) dot[r][c] = _mm512_setzero_si512();
    }
#pragma GCC unroll 8
    for (int i = 0; i < kGroup / 4; ++i) {
        __m512i e[kRegisters];
#pragma GCC unroll 4
        for (int c = 0; c < kRegisters; ++c) e[c] = held(_mm512_load_si512(tokens.q[i][16 * c]));
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            int32_t four;
            std::memcpy(&four, p.q + rows[r] * kGroup + 4 * i, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int c = 0; c < kRegisters; ++c) dot[r][c] = _mm512_dpbusd_epi32(dot[r][c], x, e[c]);
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < kRegisters; ++c) {
        const __m512 scale = _mm512_load_ps(tokens.d + 16 * c);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            float* sum = sums + rows[r] * kStrip + 16 * c;
            const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[r][c]), scale);
            _mm512_storeu_ps(sum, _mm512_fmadd_ps(value, _mm512_set1_ps(p.d[rows[r]]), _mm512_loadu_ps(sum)));
        }
    }
}

}  // namespace

bool has_group_product() { return has_avx512_vnni(); }

void quantise_tokens(const float* rows, int64_t stride, TokenGroup& to) {
    for (int64_t c = 0; c < kStrip; c += 16) {
        __m512i most = _mm512_setzero_si512();
        for (int64_t k = 0; k < kGroup; ++k) {
            most = _mm512_max_epu32(most, size_bits(_mm512_loadu_ps(rows + k * stride + c)));
        }
        const __m512 largest = _mm512_castsi512_ps(most), inverse = inverse_of(largest, 127.0f);
        _mm512_store_ps(to.d + c, _mm512_mul_ps(largest, _mm512_set1_ps(1.0f / 127.0f)));
        for (int64_t k = 0; k < kGroup; k += 4) {
            const auto rounded = [&](int64_t token) {
                return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(rows + token * stride + c), inverse));
            };
            const __m512i bytes = interleave(rounded(k), rounded(k + 1), rounded(k + 2), rounded(k + 3));
            _mm512_store_si512(to.q[k / 4][c], bytes);
        }
    }
}

float quantise_probabilities(const float* p, int64_t count, uint8_t* q) {
    const auto present = static_cast<__mmask32>(count >= kGroup ? 0xffffffff : (1u << count) - 1);
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present), p);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present >> 16), p + 16);
    const uint32_t bits = _mm512_reduce_max_epu32(_mm512_max_epu32(size_bits(low), size_bits(high)));
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    const __m512 inverse = inverse_of(_mm512_set1_ps(largest), 255.0f);
    const auto store = [&](__m512 x, uint8_t* to) {
        const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
    };
    store(low, q);
    store(high, q + 16);
    return largest / 255.0f;
}

void multiply_group(const TokenGroup& tokens, const ProbabilityGroup& p, const int32_t* rows, int64_t n, float* sums) {
    constexpr int64_t kRows = 6;  // of a register tile
    for (int64_t tiles = (n + kRows - 1) / kRows; tiles > 0; --tiles) {
        const int64_t count = (n + tiles - 1) / tiles;
        switch (count) {
            case 6:
                multiply<6>(tokens, p, rows, sums);
                break;
            case 5:
                multiply<5>(tokens, p, rows, sums);
                break;
            case 4:
                multiply<4>(tokens, p, rows, sums);
                break;
            case 3:
                multiply<3>(tokens, p, rows, sums);
                break;
            case 2:
                multiply<2>(tokens, p, rows, sums);
                break;
            default:
                multiply<1>(tokens, p, rows, sums);
        }
        rows += count;
        n -= count;
    }
}

}  // namespace dgemma
