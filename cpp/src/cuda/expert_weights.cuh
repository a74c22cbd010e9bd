// How weights, as GGUF stores them, become what the tensor cores multiply: a group of 32 values of a row as signed
// bytes, with the scale and the minimum that make them weights again. The bytes lie in shared memory.
//
// Of a group, thread t (0 … 3) of those that share a row takes values 4t … 4t + 3 (x) and 16 + 4t … 16 + 4t + 3 (y).
#pragma once

#include "cuda/dequantise.cuh"

namespace dgemma::cuda {

/// value = scale q - minimum, of one group.
struct alignas(8) RowScale {
    float scale, minimum;
};

/// At an even address.
__device__ inline unsigned load_u32_by_halves(const uint8_t* at) {
    return load_u16(at) | static_cast<unsigned>(load_u16(at + 2)) << 16;
}

/// Of two groups, 6 bits each in a byte of its own.
struct SmallScales {
    unsigned scales, minima;
    __device__ float scale(int i) const { return static_cast<float>(scales >> 8 * i & 255u); }
    __device__ float minimum(int i) const { return static_cast<float>(minima >> 8 * i & 255u); }
};

/// Groups 2 pair and 2 pair + 1 of a Q4_K or Q5_K block, pair = in_half + 2 half: its bytes 4 … 15 (dequantise.cuh).
__device__ inline SmallScales load_small_scales(const uint8_t* block, int in_half, int half) {
    const int shift = in_half * 16;
    const unsigned first = load_u32(block + 4) >> shift, second = load_u32(block + 8) >> shift;
    if (half == 0) return {first & 0x3f3fu, second & 0x3f3fu};
    const unsigned third = load_u32(block + 12) >> shift;
    return {(third & 0x0f0fu) | (first >> 2 & 0x3030u), (third >> 4 & 0x0f0fu) | (second >> 2 & 0x3030u)};
}

__device__ inline void load_small_scales(const uint8_t* block, int pair, RowScale (&scales)[2]) {
    const SmallScales small = load_small_scales(block, pair % 2, pair / 2);
    const float d = load_half(block), m = load_half(block + 2);
#pragma unroll
    for (int i = 0; i < 2; ++i) scales[i] = {d * small.scale(i), m * small.minimum(i)};
}

// kDepth values of a row, kBytes of them, are multiplied at a time: two groups or one for each of the four warps that
// share a row.

struct Q4_KGroups {
    static constexpr int kDepth = 256, kBytes = 144;
    static constexpr bool kHasMinimum = true, kAligned = true;  // every row begins at a multiple of 16 bytes
    static __device__ uint2 words(const uint8_t* block, int group, int t) {
        const uint8_t* at = block + 16 + group / 2 * 32 + 4 * t;
        const int shift = group % 2 * 4;
        return {load_u32(at) >> shift & 0x0f0f0f0fu, load_u32(at + 16) >> shift & 0x0f0f0f0fu};
    }
    static __device__ void scales(const uint8_t* block, int share, RowScale (&scales)[2]) {
        load_small_scales(block, share, scales);
    }
};

/// Like Q4_K, with the fifth bits in 32 bytes before the fours: bit `group` of byte i is that of value i.
struct Q5_KGroups {
    static constexpr int kDepth = 256, kBytes = 176;
    static constexpr bool kHasMinimum = true, kAligned = true;
    /// The fours may begin with those of group `first`.
    static __device__ uint2 words(const uint8_t* block, int group, int t, int first = 0) {
        const uint8_t *at = block + 48 + (group - first) / 2 * 32 + 4 * t, *fifth = block + 16 + 4 * t;
        const auto word = [&](int offset) {
            const unsigned high = load_u32(fifth + offset) >> group & 0x01010101u;
            return (load_u32(at + offset) >> (group % 2 * 4) & 0x0f0f0f0fu) | high << 4;
        };
        return {word(0), word(16)};
    }
    static __device__ void scales(const uint8_t* block, int share, RowScale (&scales)[2]) {
        load_small_scales(block, share, scales);
    }
};

struct Q8_0Groups {
    static constexpr int kDepth = 128, kBytes = 4 * 34;
    static constexpr bool kHasMinimum = false, kAligned = false;
    static __device__ uint2 words(const uint8_t* blocks, int group, int t) {
        const uint8_t* at = blocks + group * 34 + 2 + 4 * t;
        return {load_u32_by_halves(at), load_u32_by_halves(at + 16)};
    }
    static __device__ void scales(const uint8_t* blocks, int share, RowScale (&scales)[1]) {
        scales[0] = {load_half(blocks + share * 34), 0};
    }
};

/// 18 bytes for 32 values: half d · 4-bit q[32], values 0 … 15 in the low halves. Value: d (q - 8). In the high half of
/// a signed byte q - 8 is q with its first bit turned, 16 times as large.
struct Q4_0Groups {
    static constexpr int kDepth = 128, kBytes = 4 * 18;
    static constexpr bool kHasMinimum = false, kAligned = false;
    static __device__ uint2 words(const uint8_t* blocks, int group, int t) {
        const unsigned q = load_u32_by_halves(blocks + group * 18 + 2 + 4 * t);
        return {(q << 4 & 0xf0f0f0f0u) ^ 0x80808080u, (q & 0xf0f0f0f0u) ^ 0x80808080u};
    }
    static __device__ void scales(const uint8_t* blocks, int share, RowScale (&scales)[1]) {
        scales[0] = {load_half(blocks + share * 18) * 0.0625f, 0};
    }
};

/// 22 bytes for 32 values: half d · fifth bits [32] · 4-bit q[32] like Q4_0's. Value: d (q - 16); the same with three
/// bits.
struct Q5_0Groups {
    static constexpr int kDepth = 128, kBytes = 4 * 22;
    static constexpr bool kHasMinimum = false, kAligned = false;
    static __device__ uint2 words(const uint8_t* blocks, int group, int t) {
        const uint8_t* block = blocks + group * 22;
        const unsigned fifth = load_u32_by_halves(block + 2), q = load_u32_by_halves(block + 6 + 4 * t);
        // Four neighbouring bits to the highest of four bytes, turned.
        const auto spread = [&](int first) { return ~((fifth >> first & 15u) * 0x10204080u) & 0x80808080u; };
        return {(q << 3 & 0x78787878u) | spread(4 * t), (q >> 1 & 0x78787878u) | spread(16 + 4 * t)};
    }
    static __device__ void scales(const uint8_t* blocks, int share, RowScale (&scales)[1]) {
        scales[0] = {load_half(blocks + share * 22) * 0.125f, 0};
    }
};

/// 20 bytes for 32 values: half d, half m · 4-bit q[32] like Q4_0's. Value: d q + m.
struct Q4_1Groups {
    static constexpr int kDepth = 128, kBytes = 4 * 20;
    static constexpr bool kHasMinimum = true, kAligned = false;
    static __device__ uint2 words(const uint8_t* blocks, int group, int t) {
        const unsigned q = load_u32(blocks + group * 20 + 4 + 4 * t);
        return {q & 0x0f0f0f0fu, q >> 4 & 0x0f0f0f0fu};
    }
    static __device__ void scales(const uint8_t* blocks, int share, RowScale (&scales)[1]) {
        scales[0] = {load_half(blocks + share * 20), -load_half(blocks + share * 20 + 2)};
    }
};

/// 24 bytes for 32 values: half d, half m · fifth bits [32] · 4-bit q[32]. Value: d q + m.
struct Q5_1Groups {
    static constexpr int kDepth = 128, kBytes = 4 * 24;
    static constexpr bool kHasMinimum = true, kAligned = false;
    static __device__ uint2 words(const uint8_t* blocks, int group, int t) {
        const uint8_t* block = blocks + group * 24;
        const unsigned fifth = load_u32(block + 4), q = load_u32(block + 8 + 4 * t);
        const auto spread = [&](int first) { return (fifth >> first & 15u) * 0x02040810u & 0x10101010u; };
        return {(q & 0x0f0f0f0fu) | spread(4 * t), (q >> 4 & 0x0f0f0f0fu) | spread(16 + 4 * t)};
    }
    static __device__ void scales(const uint8_t* blocks, int share, RowScale (&scales)[1]) {
        scales[0] = {load_half(blocks + share * 24), -load_half(blocks + share * 24 + 2)};
    }
};

/// The levels that the four low halves of a word's bytes name (x), and the high ones (y).
__device__ inline uint2 levels_of(unsigned q) {
    // By their lower three bits, of the first eight levels and of the last.
    const auto four = [](unsigned fours) {
        const unsigned low = __byte_perm(kLevelWords[0], kLevelWords[1], fours & 0x7777u);
        const unsigned high = __byte_perm(kLevelWords[2], kLevelWords[3], fours & 0x7777u);
        return __byte_perm(low, high, 0x3210u | (fours & 0x8888u) >> 1);
    };
    const unsigned first = four(q), second = four(q >> 16);  // low and high halves in turn
    return {__byte_perm(first, second, 0x6420u), __byte_perm(first, second, 0x7531u)};
}

/// 18 bytes for 32 values: half d · 4-bit q[32] like Q4_0's. Value: d level(q).
struct IQ4_NLGroups {
    static constexpr int kDepth = 128, kBytes = 4 * 18;
    static constexpr bool kHasMinimum = false, kAligned = false;
    static __device__ uint2 words(const uint8_t* blocks, int group, int t) {
        return levels_of(load_u32_by_halves(blocks + group * 18 + 2 + 4 * t));
    }
    static __device__ void scales(const uint8_t* blocks, int share, RowScale (&scales)[1]) {
        scales[0] = {load_half(blocks + share * 18), 0};
    }
};

/// 136 bytes for 256 values (dequantise.cuh): 8 groups like IQ4_NL's, with a scale of 6 bits less 32 each.
struct IQ4_XSGroups {
    static constexpr int kDepth = 256, kBytes = 136;
    static constexpr bool kHasMinimum = false, kAligned = false;
    static __device__ uint2 words(const uint8_t* block, int group, int t) {
        return levels_of(load_u32(block + 8 + group * 16 + 4 * t));  // every block begins at a multiple of 8 bytes
    }
    /// head: the block's first 8 bytes.
    static __device__ RowScale scale(const uint8_t* head, int group) {
        const int low = head[4 + group / 2] >> (group % 2 * 4) & 15, high = load_u16(head + 2) >> (group * 2) & 3;
        return {load_half(head) * static_cast<float>((low | high << 4) - 32), 0};
    }
    static __device__ void scales(const uint8_t* block, int group, RowScale (&scales)[1]) {
        scales[0] = scale(block, group);
    }
    static __device__ void scales(const uint8_t* block, int share, RowScale (&scales)[2]) {
        for (int i = 0; i < 2; ++i) scales[i] = scale(block, 2 * share + i);
    }
};

}  // namespace dgemma::cuda
