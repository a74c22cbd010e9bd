// Blocks of 32 values (unpack_avx512.cpp draws them) of 8 rows at once.
#include "cpu/panel_avx2.h"

namespace dgemma::avx2 {
namespace {

/// The dword at byte `at` of every row; `at` is even.
__m256i dword(const __m256i* dwords, int at) {
    const __m256i* first = dwords + at / 4;
    if (at % 4 == 0) return first[0];
    return _mm256_or_si256(_mm256_srli_epi32(first[0], 16), _mm256_slli_epi32(first[1], 16));
}

/// The F16 at byte `at`.
__m256 half_at(const __m256i* dwords, int at) {
    return halves(at % 4 == 0 ? dwords[at / 4] : _mm256_srli_epi32(dwords[at / 4], 16));
}

/// 16 bytes of nibbles: the low ones are values 0 … 15, the high ones 16 … 31.
void nibbles(const __m256i* dwords, int at, __m256i values[8]) {
    for (int i = 0; i < 4; ++i) {
        const __m256i both = dword(dwords, at + 4 * i);
        values[i] = and_bytes(both, 15);
        values[4 + i] = and_bytes(_mm256_srli_epi16(both, 4), 15);
    }
}

/// All bits of those bytes of value dword i that have their bit set among 32 bits, one for each value.
__m256i where_set(__m256i bits, int i) {
    const __m256i bytes =
        _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c);
    const __m256i byte = _mm256_shuffle_epi8(bits, _mm256_add_epi8(bytes, bytes_of(i / 2)));
    const __m256i one = _mm256_set1_epi32(static_cast<int>(i % 2 == 0 ? 0x08040201 : 0x80402010));
    return _mm256_cmpeq_epi8(_mm256_and_si256(byte, one), one);
}

struct Q4_0 : FourSigned {  // w = d (q - 8)
    static constexpr int kBytes = 18;
    static void place(const __m256i* dwords, int at, __m256i values[8]) {
        nibbles(dwords, at + 2, values);
        for (int i = 0; i < 8; ++i) values[i] = _mm256_sub_epi8(values[i], bytes_of(8));
    }
};

struct Q4_1 : FourUnsigned {  // w = d q + m
    static constexpr int kBytes = 20;
    static void place(const __m256i* dwords, int at, __m256i values[8]) { nibbles(dwords, at + 4, values); }
};

struct Q5_0 : FiveSigned {  // w = d (q - 16): a nibble where the fifth bit is set, and the nibble - 16 where it is not
    static constexpr int kBytes = 22;
    static void place(const __m256i* dwords, int at, __m256i values[8]) {
        nibbles(dwords, at + 6, values);
        const __m256i absent = _mm256_xor_si256(dword(dwords, at + 2), _mm256_set1_epi32(-1));
        for (int i = 0; i < 8; ++i) values[i] = _mm256_or_si256(values[i], and_bytes(where_set(absent, i), -16));
    }
};

struct Q5_1 : FiveUnsigned {  // w = d q + m
    static constexpr int kBytes = 24;
    static void place(const __m256i* dwords, int at, __m256i values[8]) {
        nibbles(dwords, at + 8, values);
        const __m256i fifth = dword(dwords, at + 4);
        for (int i = 0; i < 8; ++i) values[i] = _mm256_or_si256(values[i], and_bytes(where_set(fifth, i), 16));
    }
};

struct Q8_0 : EightSigned {
    static constexpr int kBytes = 34;
    static void place(const __m256i* dwords, int at, __m256i values[8]) {
        for (int i = 0; i < 8; ++i) values[i] = dword(dwords, at + 2 + 4 * i);
    }
};

struct Iq4Nl : EightSigned {  // sixteen uneven levels
    static constexpr int kBytes = 18;
    static void place(const __m256i* dwords, int at, __m256i values[8]) {
        const __m256i levels = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
        nibbles(dwords, at + 2, values);
        for (int i = 0; i < 8; ++i) values[i] = _mm256_shuffle_epi8(levels, values[i]);
    }
};

/// A block that begins at byte `at` of the dwords.
template <typename Type>
void place_block(const __m256i* dwords, int at, int64_t group, int quarter, Panel& panel) {
    __m256i values[kGroupDwords];
    Type::place(dwords, at, values);
    place_group<Type>(values, group, quarter, panel);
    _mm256_store_ps(panel.scales[group][quarter], half_at(dwords, at));
    if (!Type::kUnsigned) return;
    const __m256 minus_m = _mm256_sub_ps(_mm256_setzero_ps(), half_at(dwords, at + 2));
    _mm256_store_ps(panel.mins[group][quarter], minus_m);
}

/// Two blocks at a time: one alone may end within a dword.
template <typename Type>
void place(const uint8_t* blocks, int64_t stride, int64_t count, int quarter, Panel& panel) {
    constexpr int kDwords = 2 * Type::kBytes / 4;
    __m256i dwords[(kPanelGroups / 2 * kDwords + 3) / 4 * 4];
    load_dwords(blocks, stride, count / kGroup * Type::kBytes, dwords);
    for (int64_t group = 0; group < count / kGroup; group += 2) {
        const __m256i* pair = dwords + group / 2 * kDwords;
        place_block<Type>(pair, 0, group, quarter, panel);
        if (group + 1 < count / kGroup) place_block<Type>(pair, Type::kBytes, group + 1, quarter, panel);
    }
}

}  // namespace

Placer find_placer_32(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return place<Q4_0>;
        case GGML_TYPE_Q4_1:
            return place<Q4_1>;
        case GGML_TYPE_Q5_0:
            return place<Q5_0>;
        case GGML_TYPE_Q5_1:
            return place<Q5_1>;
        case GGML_TYPE_Q8_0:
            return place<Q8_0>;
        case GGML_TYPE_IQ4_NL:
            return place<Iq4Nl>;
        default:
            return nullptr;
    }
}

}  // namespace dgemma::avx2
