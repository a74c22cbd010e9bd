#include <immintrin.h>

#include "cpu/bf16_product.h"

namespace dgemma {
namespace {

/// 16 floats to BF16 in the low halves of 16 words.
__m512i low_halves(const float* x) {
    return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(x))));
}

/// The first `depth` values of p as pairs, the rest zero.
void pack_factors(const float* p, int64_t depth, uint32_t* factors) {
    for (int64_t k = 0; k < depth; k += 16) {
        const auto present = static_cast<__mmask16>(depth - k >= 16 ? 0xffff : (1 << (depth - k)) - 1);
        const auto halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(present, p + k)));
        _mm256_store_si256(reinterpret_cast<__m256i*>(factors + k / 2), halves);
    }
}

template <int kRows>
void multiply(const float* const* p, int64_t depth, const uint32_t* pairs, int64_t stride, float* const* acc) {
    constexpr int kRegisters = kBf16Columns / 16;
    alignas(64) uint32_t factors[kRows][kBf16Depth / 2];
    for (int r = 0; r < kRows; ++r) pack_factors(p[r], depth, factors[r]);
    __m512 sum[kRows][kRegisters];
    for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < kRegisters; ++c) sum[r][c] = _mm512_loadu_ps(acc[r] + 16 * c);
    }
    for (int64_t k = 0; k < (depth + 1) / 2; ++k) {
        __m512bh e[kRegisters];
#pragma GCC unroll 4
        for (int c = 0; c < kRegisters; ++c) {
            __m512i words = _mm512_loadu_si512(pairs + k * stride + 16 * c);
            asm("" : "+v"(words));  // kept in a register, as in panel_avx512.cpp
            e[c] = reinterpret_cast<__m512bh>(words);
        }
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
            const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(factors[r][k])));
#pragma GCC unroll 4
            for (int c = 0; c < kRegisters; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], x, e[c]);
        }
    }
    for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < kRegisters; ++c) _mm512_storeu_ps(acc[r] + 16 * c, sum[r][c]);
    }
}

}  // namespace

bool has_bf16_product() {
    static const bool able = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
    return able;
}

void pack_bf16_pairs(const float* panel, int64_t depth, int64_t n, uint32_t* pairs) {
    for (int64_t k = 0; k < depth; k += 2) {
        const float* rows = panel + k * n;
        for (int64_t c = 0; c < n; c += 16) {
            const __m512i high = k + 1 < depth ? _mm512_slli_epi32(low_halves(rows + n + c), 16) : __m512i{};
            _mm512_storeu_si512(pairs + k / 2 * n + c, _mm512_or_si512(low_halves(rows + c), high));
        }
    }
}

void multiply_bf16_pairs(const float* const* p, int64_t rows, int64_t depth, const uint32_t* pairs, int64_t stride,
                         float* const* acc) {
    switch (rows) {
        case 6:
            return multiply<6>(p, depth, pairs, stride, acc);
        case 5:
            return multiply<5>(p, depth, pairs, stride, acc);
        case 4:
            return multiply<4>(p, depth, pairs, stride, acc);
        case 3:
            return multiply<3>(p, depth, pairs, stride, acc);
        case 2:
            return multiply<2>(p, depth, pairs, stride, acc);
        default:
            return multiply<1>(p, depth, pairs, stride, acc);
    }
}

}  // namespace dgemma
