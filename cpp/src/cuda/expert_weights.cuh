// How weights, as GGUF stores them, become what the tensor cores multiply: a group of 32 values of a row as signed
// bytes, with the scale and the minimum that make them weights again. The bytes lie in shared memory.
//
// Of a group, thread t (0 … 3) of those that share a row takes values 4t … 4t + 3 and 16 + 4t … 16 + 4t + 3.
#pragma once

#include "cuda/dequantise.cuh"

namespace dgemma::cuda {

/// value = scale q - minimum
struct GroupPart {
    unsigned q[2];  // four signed bytes each
    float scale, minimum;
};

__device__ inline unsigned load_u32(const uint8_t* at) { return *reinterpret_cast<const unsigned*>(at); }

/// At an even address.
__device__ inline unsigned load_u32_by_halves(const uint8_t* at) {
    return load_u16(at) | static_cast<unsigned>(load_u16(at + 2)) << 16;
}

/// The scale and minimum, 6 bits each, of a group of a Q4_K or Q5_K block (dequantise.cuh).
__device__ inline void load_small_scales(const uint8_t* block, int group, GroupPart& part) {
    const unsigned scales = load_u32(block + 4), minima = load_u32(block + 8), rest = load_u32(block + 12);
    const int shift = group % 4 * 8;
    const unsigned low_scale = scales >> shift, low_minimum = minima >> shift, low_rest = rest >> shift;
    const bool is_low = group < 4;
    const unsigned scale = is_low ? low_scale & 63u : (low_rest & 15u) | (low_scale >> 2 & 48u);
    const unsigned minimum = is_low ? low_minimum & 63u : (low_rest >> 4 & 15u) | (low_minimum >> 2 & 48u);
    part.scale = load_half(block) * static_cast<float>(scale);
    part.minimum = load_half(block + 2) * static_cast<float>(minimum);
}

// kDepth values of a row, kBytes of them, are multiplied at a time: two groups or one for each of the four warps that
// share a row.

struct Q4_KGroups {
    static constexpr int kDepth = 256, kBytes = 144;
    static constexpr bool kHasMinimum = true, kAligned = true;  // every row begins at a multiple of 16 bytes
    static __device__ GroupPart load(const uint8_t* block, int group, int t) {
        const uint8_t* at = block + 16 + group / 2 * 32 + 4 * t;
        const int shift = group % 2 * 4;
        GroupPart part{{load_u32(at) >> shift & 0x0f0f0f0fu, load_u32(at + 16) >> shift & 0x0f0f0f0fu}, 0, 0};
        load_small_scales(block, group, part);
        return part;
    }
};

/// Like Q4_K, with the fifth bits in 32 bytes before the fours: bit `group` of byte i is that of value i.
struct Q5_KGroups {
    static constexpr int kDepth = 256, kBytes = 176;
    static constexpr bool kHasMinimum = true, kAligned = true;
    static __device__ GroupPart load(const uint8_t* block, int group, int t) {
        const uint8_t *at = block + 48 + group / 2 * 32 + 4 * t, *fifth = block + 16 + 4 * t;
        const auto quarter = [&](int offset) {
            const unsigned high = load_u32(fifth + offset) >> group & 0x01010101u;
            return (load_u32(at + offset) >> (group % 2 * 4) & 0x0f0f0f0fu) | high << 4;
        };
        GroupPart part{{quarter(0), quarter(16)}, 0, 0};
        load_small_scales(block, group, part);
        return part;
    }
};

struct Q8_0Groups {
    static constexpr int kDepth = 128, kBytes = 4 * 34;
    static constexpr bool kHasMinimum = false, kAligned = false;
    static __device__ GroupPart load(const uint8_t* blocks, int group, int t) {
        const uint8_t* block = blocks + group * 34;
        const uint8_t* at = block + 2 + 4 * t;
        return {{load_u32_by_halves(at), load_u32_by_halves(at + 16)}, load_half(block), 0};
    }
};

/// 18 bytes for 32 values: half d · 4-bit q[32], values 0 … 15 in the low halves. Value: d (q - 8). In the high half of
/// a signed byte q - 8 is q with its first bit turned, 16 times as large.
struct Q4_0Groups {
    static constexpr int kDepth = 128, kBytes = 4 * 18;
    static constexpr bool kHasMinimum = false, kAligned = false;
    static __device__ GroupPart load(const uint8_t* blocks, int group, int t) {
        const uint8_t* block = blocks + group * 18;
        const unsigned q = load_u32_by_halves(block + 2 + 4 * t);
        const unsigned low = (q << 4 & 0xf0f0f0f0u) ^ 0x80808080u, high = (q & 0xf0f0f0f0u) ^ 0x80808080u;
        return {{low, high}, load_half(block) * 0.0625f, 0};
    }
};

/// 22 bytes for 32 values: half d · fifth bits [32] · 4-bit q[32] like Q4_0's. Value: d (q - 16); the same with three
/// bits.
struct Q5_0Groups {
    static constexpr int kDepth = 128, kBytes = 4 * 22;
    static constexpr bool kHasMinimum = false, kAligned = false;
    static __device__ GroupPart load(const uint8_t* blocks, int group, int t) {
        const uint8_t* block = blocks + group * 22;
        const unsigned fifth = load_u32_by_halves(block + 2), q = load_u32_by_halves(block + 6 + 4 * t);
        // Four neighbouring bits to the highest of four bytes, turned.
        const auto spread = [&](int first) {
            return ((fifth >> first & 15u) * 0x00204081u << 7 & 0x80808080u) ^ 0x80808080u;
        };
        const unsigned low = (q << 3 & 0x78787878u) | spread(4 * t), high = (q >> 1 & 0x78787878u) | spread(16 + 4 * t);
        return {{low, high}, load_half(block) * 0.125f, 0};
    }
};

}  // namespace dgemma::cuda
