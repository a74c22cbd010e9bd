// How a strip's weights become BF16: Strip<Groups> takes them apart as for 8-bit products, bf16_weights.cuh makes
// numbers of the bytes.
#pragma once

#include "cuda/bf16_weights.cuh"
#include "cuda/dense_weights.cuh"

namespace dgemma::cuda {

/// scale (q - kZero) for the four bytes q < 128 of a word.
template <int kZero>
__device__ void unpack_small(unsigned word, unsigned scale, unsigned (&pairs)[2]) {
    constexpr unsigned kMinusZero = 0x80008000u;
    const unsigned base = bf16_pair(-128 - kZero, -128 - kZero);
    spread_bytes(word, pairs);
#pragma unroll
    for (unsigned& pair : pairs) pair = fma_bf16_pair(fma_bf16_pair(pair, kBf16One, base), scale, kMinusZero);
}

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

/// As in Strip, `half` is of a block of 256.
template <typename Groups>
__device__ Bf16Scale strip_scale(const uint8_t* strip, int group, int half) {
    if constexpr (Strip<Groups>::kIsHalf) {
        return bf16_scale(load_small_scale(strip, group, half));
    } else {
        RowScale one[1];
        Groups::scales(strip, group, one);
        return bf16_scale(one[0]);
    }
}

/// unpack(): of a thread's words of a group (expert_weights.cuh), x becomes `first` and y `second`.
template <typename Groups>
struct Bf16Strip {
    static __device__ Bf16Scale scale(const uint8_t* strip, int group, int half) {
        return strip_scale<Groups>(strip, group, half);
    }
    static __device__ void unpack(const uint8_t* strip, int group, int half, int t, const Bf16Scale& scale,
                                  unsigned (&first)[2], unsigned (&second)[2]) {
        const uint2 words = Strip<Groups>::words(strip, group, half, t);
        unpack_bf16<Groups::kHasMinimum>(words.x, scale, first);
        unpack_bf16<Groups::kHasMinimum>(words.y, scale, second);
    }
};

/// The fifth bits go where they are wanted at once.
template <>
struct Bf16Strip<Q5_KGroups> {
    static __device__ Bf16Scale scale(const uint8_t* strip, int group, int half) {
        return strip_scale<Q5_KGroups>(strip, group, half);
    }
    static __device__ void unpack(const uint8_t* strip, int group, int half, int t, const Bf16Scale& scale,
                                  unsigned (&first)[2], unsigned (&second)[2]) {
        const uint8_t *at = strip + 48 + group / 2 * 32 + 4 * t, *fifth = strip + 16 + 4 * t;
        const int turn = 4 - (half * kStripGroups + group);
        const auto word = [&](int offset) {
            const unsigned fours = load_u32(at + offset) >> (group % 2 * 4) & 0x0f0f0f0fu;
            return fours | (rotated(load_u32(fifth + offset), turn) & 0x10101010u);
        };
        unpack_bf16<true>(word(0), scale, first);
        unpack_bf16<true>(word(16), scale, second);
    }
};

// Types whose values are few bits less half of what these can be: as numbers from 0 on they are unpacked with less work
// than as signed bytes, which 8-bit products take.

template <>
struct Bf16Strip<Q4_0Groups> {
    static __device__ Bf16Scale scale(const uint8_t* strip, int group, int /*half*/) {
        const float d = load_half(strip + group * 18);
        return bf16_scale({d, 0});
    }
    static __device__ void unpack(const uint8_t* strip, int group, int /*half*/, int t, const Bf16Scale& scale,
                                  unsigned (&first)[2], unsigned (&second)[2]) {
        const unsigned q = load_u32_by_halves(strip + group * 18 + 2 + 4 * t);
        unpack_small<8>(q & 0x0f0f0f0fu, scale.scale, first);
        unpack_small<8>(q >> 4 & 0x0f0f0f0fu, scale.scale, second);
    }
};

template <>
struct Bf16Strip<Q5_0Groups> {
    static __device__ Bf16Scale scale(const uint8_t* strip, int group, int /*half*/) {
        const float d = load_half(strip + group * 22);
        return bf16_scale({d, 0});
    }
    static __device__ void unpack(const uint8_t* strip, int group, int /*half*/, int t, const Bf16Scale& scale,
                                  unsigned (&first)[2], unsigned (&second)[2]) {
        const uint8_t* block = strip + group * 22;
        const unsigned fifth = load_u32_by_halves(block + 2) >> (4 * t), q = load_u32_by_halves(block + 6 + 4 * t);
        // Four neighbouring bits to the fifth of four bytes.
        const auto spread = [&](int from) { return (fifth >> from & 15u) * 0x02040810u & 0x10101010u; };
        unpack_small<16>((q & 0x0f0f0f0fu) | spread(0), scale.scale, first);
        unpack_small<16>((q >> 4 & 0x0f0f0f0fu) | spread(16), scale.scale, second);
    }
};

/// With a scale of each half of a group, in place of a scale and a minimum.
template <>
struct Bf16Strip<Q6_KGroups> {
    static __device__ Bf16Scale scale(const uint8_t* strip, int group, int half) {
        const RowScale row = Strip<Q6_KGroups>::scale(strip, group, half);
        const float second = row.minimum * 4;
        return bf16_scale({row.scale * 4, -second});
    }
    static __device__ void unpack(const uint8_t* strip, int group, int /*half*/, int t, const Bf16Scale& scales,
                                  unsigned (&first)[2], unsigned (&second)[2]) {
        unpack_small<32>(Strip<Q6_KGroups>::word(strip, group, 4 * t), scales.scale, first);
        unpack_small<32>(Strip<Q6_KGroups>::word(strip, group, 4 * t + 16), scales.minus_minimum, second);
    }
};

}  // namespace dgemma::cuda
