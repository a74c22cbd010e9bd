// Blocks of 32 values (unpack_avx512.cpp draws them) of 16 rows at once.
#include "cpu/panel_avx512.h"

namespace dgemma {
namespace {

/// The dword at byte `at` of every row; `at` is even.
__m512i dword(const __m512i* dwords, int at) {
    const __m512i* first = dwords + at / 4;
    if (at % 4 == 0) return first[0];
    // The upper half of one and the lower half of the next, then changed round.
    return _mm512_rol_epi32(_mm512_mask_blend_epi16(0xAAAAAAAA, first[1], first[0]), 16);
}

/// The F16 at byte `at`.
__m512 half_at(const __m512i* dwords, int at) {
    return halves(at % 4 == 0 ? dwords[at / 4] : _mm512_srli_epi32(dwords[at / 4], 16));
}

/// 16 bytes of nibbles: the low ones are values 0 … 15, the high ones 16 … 31.
void nibbles(const __m512i* dwords, int at, __m512i values[8]) {
    for (int i = 0; i < 4; ++i) {
        const __m512i both = dword(dwords, at + 4 * i);
        values[i] = and_bytes(both, 15);
        values[4 + i] = and_bytes(_mm512_srli_epi16(both, 4), 15);
    }
}

/// Which bytes of value dword i have their bit set among 32 bits, one for each value.
__mmask64 bits_of(__m512i bits, int i) {
    const __m512i bytes =
        _mm512_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c,
                         0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    const __m512i byte = _mm512_shuffle_epi8(bits, _mm512_add_epi8(bytes, _mm512_set1_epi8(static_cast<char>(i / 2))));
    return _mm512_test_epi8_mask(byte, _mm512_set1_epi32(static_cast<int>(i % 2 == 0 ? 0x08040201 : 0x80402010)));
}

struct Q4_0 {  // w = d (q - 8)
    static constexpr int kBytes = 18;
    static constexpr bool kHasMin = false, kSigned = true;
    static void place(const __m512i* dwords, int at, __m512i values[8]) {
        nibbles(dwords, at + 2, values);
        for (int i = 0; i < 8; ++i) values[i] = _mm512_sub_epi8(values[i], _mm512_set1_epi8(8));
    }
};

struct Q4_1 {  // w = d q + m
    static constexpr int kBytes = 20;
    static constexpr bool kHasMin = true, kSigned = false;
    static void place(const __m512i* dwords, int at, __m512i values[8]) { nibbles(dwords, at + 4, values); }
};

struct Q5_0 {  // w = d (q - 16): a nibble where the fifth bit is set, and the nibble - 16 where it is not
    static constexpr int kBytes = 22;
    static constexpr bool kHasMin = false, kSigned = true;
    static void place(const __m512i* dwords, int at, __m512i values[8]) {
        nibbles(dwords, at + 6, values);
        const __m512i absent = _mm512_xor_si512(dword(dwords, at + 2), _mm512_set1_epi32(-1));
        for (int i = 0; i < 8; ++i) {
            values[i] = _mm512_mask_sub_epi8(values[i], bits_of(absent, i), values[i], _mm512_set1_epi8(16));
        }
    }
};

struct Q5_1 {  // w = d q + m
    static constexpr int kBytes = 24;
    static constexpr bool kHasMin = true, kSigned = false;
    static void place(const __m512i* dwords, int at, __m512i values[8]) {
        nibbles(dwords, at + 8, values);
        const __m512i fifth = dword(dwords, at + 4);
        for (int i = 0; i < 8; ++i) {
            values[i] = _mm512_mask_add_epi8(values[i], bits_of(fifth, i), values[i], _mm512_set1_epi8(16));
        }
    }
};

struct Q8_0 {
    static constexpr int kBytes = 34;
    static constexpr bool kHasMin = false, kSigned = true;
    static void place(const __m512i* dwords, int at, __m512i values[8]) {
        for (int i = 0; i < 8; ++i) values[i] = dword(dwords, at + 2 + 4 * i);
    }
};

struct Iq4Nl {  // sixteen uneven levels
    static constexpr int kBytes = 18;
    static constexpr bool kHasMin = false, kSigned = true;
    static void place(const __m512i* dwords, int at, __m512i values[8]) {
        const __m512i levels = _mm512_broadcast_i32x4(
            _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
        nibbles(dwords, at + 2, values);
        for (int i = 0; i < 8; ++i) values[i] = _mm512_shuffle_epi8(levels, values[i]);
    }
};

/// A block that begins at byte `at` of the dwords.
template <typename Type>
void place_block(const __m512i* dwords, int at, int64_t group, int half, Panel& panel) {
    __m512i values[8];
    Type::place(dwords, at, values);
    place_group<Type::kSigned>(values, group, half, panel);
    _mm512_store_ps(panel.scales[group][half], half_at(dwords, at));
    if (!Type::kHasMin) return;
    const __m512 minus_m = _mm512_sub_ps(_mm512_setzero_ps(), half_at(dwords, at + 2));
    _mm512_store_ps(panel.mins[group][half], minus_m);
}

/// Two blocks at a time: one alone may end within a dword.
template <typename Type>
void place(const uint8_t* blocks, int64_t stride, int64_t count, int half, Panel& panel) {
    constexpr int kDwords = 2 * Type::kBytes / 4;
    __m512i dwords[(kPanelValues / kGroup / 2 * kDwords + 15) / 16 * 16];
    load_dwords(blocks, stride, count / kGroup * Type::kBytes, dwords);
    for (int64_t group = 0; group < count / kGroup; group += 2) {
        const __m512i* pair = dwords + group / 2 * kDwords;
        place_block<Type>(pair, 0, group, half, panel);
        if (group + 1 < count / kGroup) place_block<Type>(pair, Type::kBytes, group + 1, half, panel);
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

}  // namespace dgemma
