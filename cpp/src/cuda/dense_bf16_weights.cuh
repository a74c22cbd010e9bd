// How a strip's weights become BF16: Strip<Groups> takes them apart as for 8-bit products, bf16_bytes.cuh makes numbers
// of the bytes, 2^-32 of the weights' size.
#pragma once

#include "cuda/bf16_bytes.cuh"
#include "cuda/dense_weights.cuh"

namespace dgemma::cuda {

/// Of a group of a half of a Q4_K or Q5_K block, as load_small_scales() has them of two.
__device__ inline RowScale load_small_scale(const uint8_t* block, int group, int half) {
    const int shift = group * 8;
    const unsigned first = load_u32(block + 4) >> shift, second = load_u32(block + 8) >> shift;
    unsigned scale = first & 63u, minimum = second & 63u;
    if (half == 1) {
        const unsigned third = load_u32(block + 12) >> shift;
        scale = (third & 15u) | (first >> 2 & 48u);
        minimum = (third >> 4 & 15u) | (second >> 2 & 48u);
    }
    return {load_half(block) * static_cast<float>(scale), load_half(block + 2) * static_cast<float>(minimum)};
}

/// `half` is of a block of 256, as in Strip. scale() makes what unpack() takes; unpack(): of a thread's words of a
/// group (expert_weights.cuh), x becomes `first` and y `second`.
template <typename Groups>
struct Bf16Strip {
    using Scale = unsigned;

    static __device__ Scale scale(const uint8_t* strip, int group, int /*half*/) {
        RowScale one[1];
        Groups::scales(strip, group, one);
        return bytes_scale<Groups::kHasMinimum>(one[0]);
    }
    static __device__ void unpack(const uint8_t* strip, int group, int half, int t, Scale scale, unsigned (&first)[2],
                                  unsigned (&second)[2]) {
        constexpr unsigned kSigns = Groups::kHasMinimum ? 0 : 0x80808080u;
        const uint2 words = Strip<Groups>::words(strip, group, half, t);
        scale_bytes(words.x ^ kSigns, scale, first);
        scale_bytes(words.y ^ kSigns, scale, second);
    }
};

template <>
struct Bf16Strip<IQ4_XSGroups> {
    using Scale = unsigned;

    static __device__ Scale scale(const uint8_t* strip, int group, int half) {
        return bytes_scale<false>(IQ4_XSGroups::scale(strip, 4 * half + group));
    }
    static __device__ void unpack(const uint8_t* strip, int group, int half, int t, Scale scale, unsigned (&first)[2],
                                  unsigned (&second)[2]) {
        const uint2 words = Strip<IQ4_XSGroups>::words(strip, group, half, t);
        scale_bytes(words.x ^ 0x80808080u, scale, first);
        scale_bytes(words.y ^ 0x80808080u, scale, second);
    }
};

/// High halves of bytes stay where they are, 16 times as large.
template <>
struct Bf16Strip<Q4_KGroups> {
    using Scale = unsigned;

    static __device__ Scale scale(const uint8_t* strip, int group, int half) {
        const RowScale row = load_small_scale(strip, group, half);
        return bytes_scale<true>({row.scale * (group % 2 == 0 ? 1.0f : 0.0625f), row.minimum});
    }
    static __device__ void unpack(const uint8_t* strip, int group, int /*half*/, int t, Scale scale,
                                  unsigned (&first)[2], unsigned (&second)[2]) {
        const uint8_t* at = strip + 16 + group / 2 * 32 + 4 * t;
        const unsigned bits = group % 2 == 0 ? 0x0f0f0f0fu : 0xf0f0f0f0u;
        scale_bytes(load_u32(at) & bits, scale, first);
        scale_bytes(load_u32(at + 16) & bits, scale, second);
    }
};

/// d (q - 16); the fifth bits go to their place in q, not to the sign's.
template <>
struct Bf16Strip<Q5_0Groups> {
    using Scale = unsigned;

    static __device__ Scale scale(const uint8_t* strip, int group, int /*half*/) {
        const float d = load_half(strip + group * 22);
        return bytes_scale<true>({d, 16 * d});
    }
    static __device__ void unpack(const uint8_t* strip, int group, int /*half*/, int t, Scale scale,
                                  unsigned (&first)[2], unsigned (&second)[2]) {
        const uint8_t* block = strip + group * 22;
        const unsigned fifth = load_u32_by_halves(block + 2) >> (4 * t), q = load_u32_by_halves(block + 6 + 4 * t);
        // Four neighbouring bits to the fifth of four bytes.
        const auto spread = [&](int from) { return (fifth >> from & 15u) * 0x02040810u & 0x10101010u; };
        scale_bytes((q & 0x0f0f0f0fu) | spread(0), scale, first);
        scale_bytes((q >> 4 & 0x0f0f0f0fu) | spread(16), scale, second);
    }
};

/// The fifth bits are turned to their place at once.
template <>
struct Bf16Strip<Q5_KGroups> {
    using Scale = unsigned;

    static __device__ Scale scale(const uint8_t* strip, int group, int half) {
        return bytes_scale<true>(load_small_scale(strip, group, half));
    }
    static __device__ void unpack(const uint8_t* strip, int group, int half, int t, Scale scale, unsigned (&first)[2],
                                  unsigned (&second)[2]) {
        const uint8_t *at = strip + 48 + group / 2 * 32 + 4 * t, *fifth = strip + 16 + 4 * t;
        const int turn = 4 - (half * kStripGroups + group);
        const auto word = [&](int offset) {
            const unsigned fours = load_u32(at + offset) >> (group % 2 * 4) & 0x0f0f0f0fu;
            return fours | (rotated(load_u32(fifth + offset), turn) & 0x10101010u);
        };
        scale_bytes(word(0), scale, first);
        scale_bytes(word(16), scale, second);
    }
};

/// scale (q - 32), with a scale of each half of a group.
template <>
struct Bf16Strip<Q6_KGroups> {
    struct alignas(8) Scale {
        unsigned first, second;
    };

    static __device__ Scale scale(const uint8_t* strip, int group, int half) {
        const RowScale row = Strip<Q6_KGroups>::scale(strip, group, half);  // a quarter of both, in place of a minimum
        return {bytes_scale<true>({4 * row.scale, 128 * row.scale}),
                bytes_scale<true>({4 * row.minimum, 128 * row.minimum})};
    }
    static __device__ void unpack(const uint8_t* strip, int group, int /*half*/, int t, const Scale& scale,
                                  unsigned (&first)[2], unsigned (&second)[2]) {
        scale_bytes(Strip<Q6_KGroups>::word(strip, group, 4 * t), scale.first, first);
        scale_bytes(Strip<Q6_KGroups>::word(strip, group, 4 * t + 16), scale.second, second);
    }
};

}  // namespace dgemma::cuda
