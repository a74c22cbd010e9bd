// The layouts are those of GGUF files, little-endian; each function begins with a drawing of its block.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "cpu/has_avx512.h"
#include "cpu/unpack.h"

namespace dgemma {
namespace {

float half_at(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return _cvtsh_ss(bits);
}

uint32_t word_at(const uint8_t* p) {
    uint32_t word;
    std::memcpy(&word, p, sizeof word);
    return word;
}

__m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

void store(int8_t* p, __m256i values) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), values); }

__m256i all(int value) { return _mm256_set1_epi8(static_cast<char>(value)); }

/// Bits `shift` … `shift + 3` of every byte.
template <int shift>
__m256i nibble(__m256i bytes) {
    return _mm256_and_si256(_mm256_srli_epi16(bytes, shift), all(15));
}

/// 16 bytes of nibbles: the low ones are values 0 … 15, the high ones 16 … 31.
__m256i nibbles(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), all(15));
}

/// 32 bits: 16 where one is set.
__m256i fifth_bits(const uint8_t* p) { return _mm256_maskz_set1_epi8(word_at(p), 16); }

// -------------------------------------------------------------------------------- blocks of 32 values

template <int kBytes, bool kHasMin, typename Values>
void unpack_small(const uint8_t* b, Unpacked& to, int64_t count, Values values) {
    for (int64_t i = 0; i < count / 32; ++i, b += kBytes) {
        to.scales[i] = half_at(b);
        if (kHasMin) to.scales[8 + i] = -half_at(b + 2);
        store(to.q + 32 * i, values(b + (kHasMin ? 4 : 2)));
    }
}

/// [d: F16] [16 bytes of nibbles], w = d (q - 8)
void unpack_q4_0(const uint8_t* b, Unpacked& to, int64_t count) {
    unpack_small<18, false>(b, to, count, [](const uint8_t* p) { return _mm256_sub_epi8(nibbles(p), all(8)); });
}

/// [d: F16] [m: F16] [16 bytes of nibbles], w = d q + m
void unpack_q4_1(const uint8_t* b, Unpacked& to, int64_t count) {
    unpack_small<20, true>(b, to, count, [](const uint8_t* p) { return nibbles(p); });
}

/// [d: F16] [32 fifth bits] [16 bytes of nibbles], w = d (q - 16)
void unpack_q5_0(const uint8_t* b, Unpacked& to, int64_t count) {
    unpack_small<22, false>(b, to, count, [](const uint8_t* p) {
        return _mm256_sub_epi8(_mm256_or_si256(nibbles(p + 4), fifth_bits(p)), all(16));
    });
}

/// [d: F16] [m: F16] [32 fifth bits] [16 bytes of nibbles], w = d q + m
void unpack_q5_1(const uint8_t* b, Unpacked& to, int64_t count) {
    unpack_small<24, true>(b, to, count,
                           [](const uint8_t* p) { return _mm256_or_si256(nibbles(p + 4), fifth_bits(p)); });
}

/// [d: F16] [32 signed bytes]
void unpack_q8_0(const uint8_t* b, Unpacked& to, int64_t count) {
    unpack_small<34, false>(b, to, count, [](const uint8_t* p) { return load(p); });
}

/// [d: F16] [16 bytes of nibbles], each the index of one of sixteen uneven levels
void unpack_iq4_nl(const uint8_t* b, Unpacked& to, int64_t count) {
    const __m256i levels = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    unpack_small<18, false>(b, to, count, [=](const uint8_t* p) { return _mm256_shuffle_epi8(levels, nibbles(p)); });
}

// -------------------------------------------------------------------------------- blocks of 256 values

/// [d: F16] [d_min: F16] [12 bytes]: eight 6-bit scales and eight 6-bit minima. The first four of each are the low six
/// bits of bytes 0 … 7; the others have their low four bits in bytes 8 … 11 and the high two on top of bytes 0 … 7.
void unpack_scales(const uint8_t* b, Unpacked& to) {
    const uint32_t s = word_at(b + 4), m = word_at(b + 8), low = word_at(b + 12);
    constexpr uint32_t kSix = 0x3f3f3f3f, kFour = 0x0f0f0f0f, kTop = 0x30303030;
    const __m128i bytes =
        _mm_setr_epi32(static_cast<int>(s & kSix), static_cast<int>((low & kFour) | ((s >> 2) & kTop)),
                       static_cast<int>(m & kSix), static_cast<int>(((low >> 4) & kFour) | ((m >> 2) & kTop)));
    const __m512 factor = _mm512_insertf32x8(_mm512_set1_ps(half_at(b)), _mm256_set1_ps(half_at(b + 2)), 1);
    _mm512_store_ps(to.scales, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), factor));
}

/// [16 bytes of scales as above] [128 bytes of nibbles: 32 bytes hold two groups of 32 values]
void unpack_q4_k(const uint8_t* b, Unpacked& to, int64_t /*count*/) {
    unpack_scales(b, to);
    for (int pair = 0; pair < 4; ++pair) {
        const __m256i bytes = load(b + 16 + 32 * pair);
        store(to.q + 64 * pair, nibble<0>(bytes));
        store(to.q + 64 * pair + 32, nibble<4>(bytes));
    }
}

/// [16 bytes of scales as above] [32 bytes: bit g is the fifth bit of a value of group g] [128 bytes of nibbles]
void unpack_q5_k(const uint8_t* b, Unpacked& to, int64_t /*count*/) {
    unpack_scales(b, to);
    __m256i high = load(b + 16);
    const auto fifth = [&](int bit) { return _mm256_and_si256(_mm256_slli_epi16(high, 4 - bit), all(16)); };
    for (int pair = 0; pair < 4; ++pair) {
        const __m256i bytes = load(b + 48 + 32 * pair);
        store(to.q + 64 * pair, _mm256_or_si256(nibble<0>(bytes), fifth(0)));
        store(to.q + 64 * pair + 32, _mm256_or_si256(nibble<4>(bytes), fifth(1)));
        high = _mm256_srli_epi16(high, 2);
    }
}

/// [128 bytes: low four bits] [64 bytes: high two bits] [16 signed scales, each for 16 values] [d: F16], w = d s (q -
/// 32) In each half of 128 values, 32 bytes of high bits serve four groups of 32.
void unpack_q6_k(const uint8_t* b, Unpacked& to, int64_t /*count*/) {
    const __m512i scales = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 192)));
    _mm512_store_ps(to.scales, _mm512_mul_ps(_mm512_cvtepi32_ps(scales), _mm512_set1_ps(half_at(b + 208))));
    for (int half = 0; half < 2; ++half) {
        const __m256i low0 = load(b + 64 * half), low1 = load(b + 64 * half + 32), high = load(b + 128 + 32 * half);
        const auto place = [&](int group, __m256i low, __m256i top) {
            const __m256i q = _mm256_or_si256(low, _mm256_and_si256(top, all(48)));
            store(to.q + 128 * half + 32 * group, _mm256_sub_epi8(q, all(32)));
        };
        place(0, nibble<0>(low0), _mm256_slli_epi16(high, 4));
        place(1, nibble<0>(low1), _mm256_slli_epi16(high, 2));
        place(2, nibble<4>(low0), high);
        place(3, nibble<4>(low1), _mm256_srli_epi16(high, 2));
    }
}

constexpr Unpacker kQ4_0{32, 18, 32, false, unpack_q4_0}, kQ4_1{32, 20, 32, true, unpack_q4_1};
constexpr Unpacker kQ5_0{32, 22, 32, false, unpack_q5_0}, kQ5_1{32, 24, 32, true, unpack_q5_1};
constexpr Unpacker kQ8_0{32, 34, 32, false, unpack_q8_0}, kIq4Nl{32, 18, 32, false, unpack_iq4_nl};
constexpr Unpacker kQ4K{256, 144, 32, true, unpack_q4_k}, kQ5K{256, 176, 32, true, unpack_q5_k};
constexpr Unpacker kQ6K{256, 210, 16, false, unpack_q6_k};

}  // namespace

const Unpacker* find_unpacker(ggml_type type) {
    if (!has_avx512_vnni()) return nullptr;
    switch (type) {
        case GGML_TYPE_Q4_0:
            return &kQ4_0;
        case GGML_TYPE_Q4_1:
            return &kQ4_1;
        case GGML_TYPE_Q5_0:
            return &kQ5_0;
        case GGML_TYPE_Q5_1:
            return &kQ5_1;
        case GGML_TYPE_Q8_0:
            return &kQ8_0;
        case GGML_TYPE_IQ4_NL:
            return &kIq4Nl;
        case GGML_TYPE_Q4_K:
            return &kQ4K;
        case GGML_TYPE_Q5_K:
            return &kQ5K;
        case GGML_TYPE_Q6_K:
            return &kQ6K;
        default:
            return nullptr;
    }
}

void unpack_floats(const Unpacker& unpacker, const uint8_t* blocks, int64_t n, float* to) {
    const int64_t bytes = n / unpacker.block * unpacker.bytes;
    for (int64_t at = bytes; at < 2 * bytes; at += 64) _mm_prefetch(blocks + at, _MM_HINT_T0);
    Unpacked part;
    for (int64_t first = 0; first < n; first += kUnpacked) {
        const int64_t count = std::min(kUnpacked, n - first);
        unpacker.unpack(blocks + first / unpacker.block * unpacker.bytes, part, count);
        for (int64_t i = 0; i < count; i += 16) {
            const __m128i q = _mm_load_si128(reinterpret_cast<const __m128i*>(part.q + i));
            const __m512 values = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q));
            const __m512 scale = _mm512_set1_ps(part.scales[i / unpacker.sub]);
            const __m512 min = _mm512_set1_ps(unpacker.has_min ? part.scales[8 + i / 32] : 0.0f);
            _mm512_storeu_ps(to + first + i, _mm512_fmsub_ps(values, scale, min));
        }
    }
}

}  // namespace dgemma
