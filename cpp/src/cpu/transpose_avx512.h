// Rows of bytes to registers of one dword of every row: how the packed weights of 16 rows come beside each other.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace dgemma {

/// 16 rows of 16 dwords (64 bytes), to 16 registers of one dword of every row.
template <typename Load>
inline void transpose(Load load, __m512i out[16]) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; ++i) a[i] = load(i);
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

/// The same for 16 bytes of every row and four registers.
template <typename Load>
inline void transpose_quarter(Load load, __m512i out[4]) {
    __m512i quarter[4];  // rows j, j + 4, j + 8, j + 12
    for (int j = 0; j < 4; ++j) {
        __m512i four = _mm512_castsi128_si512(load(j));
        four = _mm512_inserti32x4(four, load(j + 4), 1);
        four = _mm512_inserti32x4(four, load(j + 8), 2);
        quarter[j] = _mm512_inserti32x4(four, load(j + 12), 3);
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

/// `bytes` of each of 16 rows, `stride` bytes apart, as registers of one dword of every row. They are rounded up to 4,
/// or to 16 where more than 4 are left. Nothing behind the bytes is read: they may be the last of a file.
inline void load_dwords(const uint8_t* rows, int64_t stride, int64_t bytes, __m512i* dwords) {
    for (; bytes >= 64; bytes -= 64, rows += 64, dwords += 16) {
        transpose([&](int row) { return _mm512_loadu_si512(rows + row * stride); }, dwords);
    }
    const auto mask = (uint64_t{1} << bytes) - 1;
    if (bytes > 16) {
        transpose([&](int row) { return _mm512_maskz_loadu_epi8(mask, rows + row * stride); }, dwords);
    } else if (bytes > 0) {
        const auto few = static_cast<__mmask16>(mask);
        transpose_quarter([&](int row) { return _mm_maskz_loadu_epi8(few, rows + row * stride); }, dwords);
    }
}

}  // namespace dgemma
