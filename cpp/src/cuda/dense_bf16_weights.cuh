// How a strip's weights become BF16: Strip<Groups> takes them apart as for 8-bit products, bf16_weights.cuh makes
// numbers of the bytes.
#pragma once

#include "cuda/bf16_weights.cuh"
#include "cuda/dense_weights.cuh"

namespace dgemma::cuda {

/// scale w for the four signed bytes w of a word that are multiples of 2^kShift. Less work than for any bytes:
/// 128 + w / 2^kShift are BF16's last seven bits.
template <int kShift>
__device__ void unpack_high_bits(unsigned word, unsigned scale, unsigned (&pairs)[2]) {
    constexpr unsigned kBits = 0xffu >> kShift, kMinusZero = 0x80008000u;
    constexpr float kStep = 1 << kShift, kBase = -kStep * (128 + (128 >> kShift));
    const unsigned step = bf16_pair(kStep, kStep), base = bf16_pair(kBase, kBase);
    spread_bytes((word ^ 0x80808080u) >> kShift & kBits * 0x01010101u, pairs);
#pragma unroll
    for (unsigned& pair : pairs) pair = fma_bf16_pair(fma_bf16_pair(pair, step, base), scale, kMinusZero);
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

/// Of a thread's words of a group, x becomes `first` and y `second`.
template <typename Groups>
struct Bf16Strip {
    static __device__ Bf16Scale scale(const uint8_t* strip, int group, int half) {
        return strip_scale<Groups>(strip, group, half);
    }
    static __device__ void unpack(uint2 words, const Bf16Scale& scale, unsigned (&first)[2], unsigned (&second)[2]) {
        unpack_bf16<Groups::kHasMinimum>(words.x, scale, first);
        unpack_bf16<Groups::kHasMinimum>(words.y, scale, second);
    }
};

template <typename Groups, int kShift>
struct HighBitsStrip {
    static __device__ Bf16Scale scale(const uint8_t* strip, int group, int half) {
        return strip_scale<Groups>(strip, group, half);
    }
    static __device__ void unpack(uint2 words, const Bf16Scale& scale, unsigned (&first)[2], unsigned (&second)[2]) {
        unpack_high_bits<kShift>(words.x, scale.scale, first);
        unpack_high_bits<kShift>(words.y, scale.scale, second);
    }
};

template <>
struct Bf16Strip<Q4_0Groups> : HighBitsStrip<Q4_0Groups, 4> {};

template <>
struct Bf16Strip<Q5_0Groups> : HighBitsStrip<Q5_0Groups, 3> {};

/// With a scale of each half of a group, in place of a scale and a minimum.
template <>
struct Bf16Strip<Q6_KGroups> {
    static __device__ Bf16Scale scale(const uint8_t* strip, int group, int half) {
        const RowScale row = Strip<Q6_KGroups>::scale(strip, group, half);
        return {bf16_pair(row.scale, row.scale), bf16_pair(row.minimum, row.minimum)};
    }
    static __device__ void unpack(uint2 words, const Bf16Scale& scales, unsigned (&first)[2], unsigned (&second)[2]) {
        unpack_high_bits<2>(words.x, scales.scale, first);
        unpack_high_bits<2>(words.y, scales.minus_minimum, second);
    }
};

}  // namespace dgemma::cuda
