// One value of an embedding row, by type. The layouts are those of GGUF; `row` begins a row, so every block of ours
// lies at an even address.
#pragma once

#include "runtime.h"

namespace dgemma::cuda {

__device__ inline uint16_t load_u16(const uint8_t* at) { return *reinterpret_cast<const uint16_t*>(at); }
__device__ inline unsigned load_u32(const uint8_t* at) { return *reinterpret_cast<const unsigned*>(at); }
__device__ inline float half_of(unsigned bits) { return __half2float(__ushort_as_half(static_cast<uint16_t>(bits))); }
__device__ inline float load_half(const uint8_t* at) { return half_of(load_u16(at)); }

struct F32Rows {
    static __device__ float value(const uint8_t* row, int column) {
        return reinterpret_cast<const float*>(row)[column];
    }
};

struct F16Rows {
    static __device__ float value(const uint8_t* row, int column) { return load_half(row + 2 * column); }
};

struct Bf16Rows {
    static __device__ float value(const uint8_t* row, int column) {
        return __uint_as_float(static_cast<unsigned>(load_u16(row + 2 * column)) << 16);
    }
};

/// 34 bytes for 32 values: half d · int8 q[32]. Value: d q.
struct Q8_0Rows {
    static __device__ float value(const uint8_t* row, int column) {
        const uint8_t* block = row + column / 32 * 34;
        return load_half(block) * static_cast<float>(static_cast<int8_t>(block[2 + column % 32]));
    }
};

/// Of a group of 32 in a block of Q4_K or Q5_K.
struct SixBits {
    int scale, minimum;
};
/// 12 bytes with 6 bits of each for 8 groups: the high two of the last four lie above those of the first.
__device__ inline SixBits six_bits(const uint8_t* packed, int group) {
    if (group < 4) return {packed[group] & 63, packed[group + 4] & 63};
    return {(packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4),
            (packed[group + 4] >> 4) | (packed[group] >> 6 << 4)};
}

/// d scale q - m minimum, of the halves d and m in one word: such blocks begin at multiples of 16 bytes.
__device__ inline float six_bit_value(unsigned d_and_m, const SixBits& small, int q) {
    return half_of(d_and_m) * static_cast<float>(small.scale) * static_cast<float>(q) -
           half_of(d_and_m >> 16) * static_cast<float>(small.minimum);
}

/// 144 bytes for 256 values: half d, half m · 12 bytes with 6-bit scales and minima of 8 groups of 32 · 4-bit q[256],
/// two groups to 32 bytes, the first in the low halves. Value: d scale q - m minimum.
struct Q4_KRows {
    static __device__ float value(const uint8_t* row, int column) {
        const uint8_t* block = row + column / 256 * 144;
        const int group = column % 256 / 32;
        const SixBits small = six_bits(block + 4, group);
        const int pair = block[16 + group / 2 * 32 + column % 32];
        const int q = group % 2 == 0 ? pair & 15 : pair >> 4;
        return six_bit_value(load_u32(block), small, q);
    }
};

/// 176 bytes for 256 values: Q4_K's first 16 · fifth bits, of which bit `group` of byte i is value i's [32] · 4-bit
/// q[256]. Value: d scale q - m minimum.
struct Q5_KRows {
    static __device__ float value(const uint8_t* row, int column) {
        const uint8_t* block = row + column / 256 * 176;
        const int group = column % 256 / 32, i = column % 32;
        const SixBits small = six_bits(block + 4, group);
        const int low = block[48 + group / 2 * 32 + i] >> (group % 2 * 4) & 15, high = block[16 + i] >> group & 1;
        return six_bit_value(load_u32(block), small, low | high << 4);
    }
};

/// 110 bytes for 256 values, in two halves of four groups of 32: third bits, of which bit 4 half + group of byte i is
/// value i's [32] · 2-bit q[64] · 6-bit scales of every 16 values [12] · half d. Value: d (scale - 32) (q - 4).
struct Q3_KRows {
    static __device__ float value(const uint8_t* row, int column) {
        const uint8_t* block = row + column / 256 * 110;
        const int half = column % 256 / 128, group = column % 128 / 32, i = column % 32, of = column % 256 / 16;
        const uint8_t* packed = block + 96;
        const int four = of < 8 ? packed[of] & 15 : packed[of - 8] >> 4, two = packed[8 + of % 4] >> (of / 4 * 2) & 3;
        const int low = block[32 + half * 32 + i] >> (group * 2) & 3, high = block[i] >> (half * 4 + group) & 1;
        return load_half(block + 108) * static_cast<float>((four | two << 4) - 32) *
               static_cast<float>((low | high << 2) - 4);
    }
};

/// The sixteen levels of IQ4_NL and IQ4_XS, a signed byte each, the first in the lowest byte of the first word.
constexpr unsigned kLevelWords[4] = {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u};

__device__ inline int level(int q) {
    constexpr uint64_t kLow = static_cast<uint64_t>(kLevelWords[1]) << 32 | kLevelWords[0];
    constexpr uint64_t kHigh = static_cast<uint64_t>(kLevelWords[3]) << 32 | kLevelWords[2];
    return static_cast<int8_t>((q < 8 ? kLow : kHigh) >> (q % 8 * 8));
}

/// 18 bytes for 32 values: half d · 4-bit q[32], the first 16 in the low halves. Value: d level(q).
struct IQ4_NLRows {
    static __device__ float value(const uint8_t* row, int column) {
        const uint8_t* block = row + column / 32 * 18;
        const int pair = block[2 + column % 16];
        return load_half(block) * static_cast<float>(level(column % 32 < 16 ? pair & 15 : pair >> 4));
    }
};

/// 136 bytes for 256 values: half d · high 2 bits of the groups' scales, together · their low 4 bits [4] · q of 8
/// groups of 32, each as in IQ4_NL [128]. Value: d (scale - 32) level(q).
struct IQ4_XSRows {
    static __device__ float value(const uint8_t* row, int column) {
        const uint8_t* block = row + column / 256 * 136;
        const int group = column % 256 / 32, pair = block[8 + group * 16 + column % 16];
        const int low = block[4 + group / 2] >> (group % 2 * 4) & 15, high = load_u16(block + 2) >> (group * 2) & 3;
        return load_half(block) * static_cast<float>((low | high << 4) - 32) *
               static_cast<float>(level(column % 32 < 16 ? pair & 15 : pair >> 4));
    }
};

/// 210 bytes for 256 values, in two halves of four groups of 32: low four bits [128], high two bits [64], int8 scale of
/// every 16 values [16], half d. Value: d scale (q - 32).
struct Q6_KRows {
    static __device__ float value(const uint8_t* row, int column) {
        const uint8_t* block = row + column / 256 * 210;
        const int half = column % 256 / 128, group = column % 128 / 32, i = column % 32;
        const int low = block[half * 64 + group % 2 * 32 + i] >> (group / 2 * 4) & 15;
        const int high = block[128 + half * 32 + i] >> (group * 2) & 3;
        const int scale = static_cast<int8_t>(block[192 + column % 256 / 16]);
        return load_half(block + 208) * static_cast<float>(scale * ((low | high << 4) - 32));
    }
};

}  // namespace dgemma::cuda
