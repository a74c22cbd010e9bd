// Rows of bytes to registers of one dword of every row, as in transpose_avx512.h, for 8 rows.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace dgemma::avx2 {

inline __m128i load_16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

/// 16 bytes of each of 8 rows, to four registers.
template <typename Load>
inline void transpose(Load load, __m256i out[4]) {
    __m256i both[4];  // rows j and j + 4
    for (int j = 0; j < 4; ++j) both[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(load(j)), load(j + 4), 1);
    const __m256i low01 = _mm256_unpacklo_epi32(both[0], both[1]), low23 = _mm256_unpacklo_epi32(both[2], both[3]);
    const __m256i high01 = _mm256_unpackhi_epi32(both[0], both[1]), high23 = _mm256_unpackhi_epi32(both[2], both[3]);
    out[0] = _mm256_unpacklo_epi64(low01, low23);
    out[1] = _mm256_unpackhi_epi64(low01, low23);
    out[2] = _mm256_unpacklo_epi64(high01, high23);
    out[3] = _mm256_unpackhi_epi64(high01, high23);
}

/// `bytes` of each of 8 rows, at least 16, `stride` bytes apart, as registers of one dword of every row; they are
/// rounded up to 4. Nothing behind the bytes is read: they may be the last of a file.
inline void load_dwords(const uint8_t* rows, int64_t stride, int64_t bytes, __m256i* dwords) {
    for (; bytes >= 16; bytes -= 16, rows += 16, dwords += 4) {
        transpose([&](int row) { return load_16(rows + row * stride); }, dwords);
    }
    if (bytes == 0) return;
    // The 16 bytes that end with the last ones, moved to the front with zeros behind them.
    alignas(16) static constexpr uint8_t kMoves[32] = {0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,
                                                       11,   12,   13,   14,   15,   0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                                       0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
    const __m128i move = load_16(kMoves + 16 - bytes);
    transpose([&](int row) { return _mm_shuffle_epi8(load_16(rows + row * stride + bytes - 16), move); }, dwords);
}

}  // namespace dgemma::avx2
