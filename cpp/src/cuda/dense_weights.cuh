// A strip, 128 columns of a row of dense weights: which of its bytes are copied to shared memory, in vectors of 16, and
// what they are there. A row that does not begin at a multiple of 16 bytes is copied from the last one before it, its
// *lead*; `strip` below is where the lead ends.
//
// Of types with blocks of 256 a strip is half a block, with what the block has for both of its halves.
#pragma once

#include "cuda/group_product.cuh"

namespace dgemma::cuda {

constexpr int kStripValues = 128, kStripGroups = kStripValues / kGroupValues;

/// Where a group of a token's values lies in its strip: in four neighbours' rows at four places, so in banks of their
/// own.
__device__ inline int turned(int group, int token) { return group ^ token % kStripGroups; }

/// The type's blocks are groups.
template <typename Groups>
struct GroupStrip {
    static constexpr bool kAligned = false, kIsHalf = false;
    // On a multiprocessor at a time, as many as a GeForce card has shared memory for: the registers have to suffice.
    static constexpr int kBlocks = 2;
    static constexpr int kMostLead = 14;
    static constexpr int kVectors = (kMostLead + Groups::kBytes + kVectorBytes - 1) / kVectorBytes;

    /// The bytes of a row before strip i.
    static __device__ int begin(int i) { return i * Groups::kBytes; }
    /// Where a vector comes from, from begin() less the lead, in this half of a block.
    static __device__ int source(int vector, int /*half*/) { return vector * kVectorBytes; }
    static __device__ uint2 words(const uint8_t* strip, int group, int /*half*/, int t) {
        return Groups::words(strip, group, t);
    }
    /// Of groups 2 pair and 2 pair + 1.
    static __device__ void scales(const uint8_t* strip, int pair, int /*half*/, RowScale (&scales)[2]) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            RowScale one[1];
            Groups::scales(strip, 2 * pair + i, one);
            scales[i] = one[0];
        }
    }
    static __device__ void add(const uint2 (&rows)[2], const RowScale (&row_scales)[2], uint2 values, float4 scales,
                               float (&sums)[4]) {
        add_product<Groups::kHasMinimum>(rows, row_scales, values, scales, sums);
    }
};

/// kHead bytes of the block, then the half's 64 bytes of fours.
template <typename Groups, int kHead>
struct HalfBlock : GroupStrip<Groups> {
    static constexpr bool kAligned = true, kIsHalf = true;
    static constexpr int kFours = 64, kVectors = (kHead + kFours) / kVectorBytes;

    static __device__ int begin(int i) { return (i >> 1) * Groups::kBytes; }
    static __device__ int source(int vector, int half) {
        return vector * kVectorBytes + (vector * kVectorBytes < kHead ? 0 : half * kFours);
    }
    static __device__ void scales(const uint8_t* strip, int pair, int half, RowScale (&scales)[2]) {
        load_small_scales(strip, 2 * half + pair, scales);
    }
};

template <typename Groups>
struct Strip : GroupStrip<Groups> {};

template <>
struct Strip<Q4_KGroups> : HalfBlock<Q4_KGroups, 16> {};

template <>
struct Strip<Q5_KGroups> : HalfBlock<Q5_KGroups, 48> {
    static __device__ uint2 words(const uint8_t* strip, int group, int half, int t) {
        return Q5_KGroups::words(strip, half * kStripGroups + group, t, half * kStripGroups);
    }
};

/// To the left, or by less than nothing to the right.
__device__ inline unsigned rotated(unsigned word, int bits) { return word << (bits & 31) | word >> (-bits & 31); }

/// Two pieces of a block: its first 8 bytes, and what is from the half's fours less 8 bytes on. Both begin a multiple
/// of 16 bytes after the block, so that they have its lead, which is of 8 bytes or none: the last vector ends with the
/// block or 8 bytes after it.
template <>
struct Strip<IQ4_XSGroups> : GroupStrip<IQ4_XSGroups> {
    static constexpr bool kIsHalf = true;
    static constexpr int kHead = 1, kFours = 5, kVectors = kHead + kFours;

    static __device__ int begin(int i) { return i / 2 * IQ4_XSGroups::kBytes; }
    static __device__ int source(int vector, int half) {
        return vector < kHead ? vector * kVectorBytes : (vector - kHead) * kVectorBytes + half * 64;
    }
    static __device__ uint2 words(const uint8_t* strip, int group, int /*half*/, int t) {
        return IQ4_XSGroups::words(strip + kHead * kVectorBytes, group, t);
    }
    static __device__ void scales(const uint8_t* strip, int pair, int half, RowScale (&scales)[2]) {
#pragma unroll
        for (int i = 0; i < 2; ++i) scales[i] = IQ4_XSGroups::scale(strip, 4 * half + 2 * pair + i);
    }
};

/// 210 bytes for 256 values (dequantise.cuh), with a scale for every 16.
struct Q6_KGroups {
    static constexpr int kBytes = 210;
};

/// Three pieces of a block: the half's low bits [64], its high bits [32], and what both have from byte 192 on. Each
/// begins a multiple of 16 bytes after the block, so that all have its lead.
template <>
struct Strip<Q6_KGroups> {
    static constexpr bool kAligned = false, kIsHalf = true;
    static constexpr int kBlocks = 2;
    static constexpr int kLow = 5, kHigh = 3, kVectors = kLow + kHigh + 2;

    static __device__ int begin(int i) { return (i >> 1) * Q6_KGroups::kBytes; }
    static __device__ int source(int vector, int half) {
        const int bytes = vector * kVectorBytes;
        if (vector < kLow) return bytes + half * 64;
        return vector < kLow + kHigh ? bytes + 128 - kAtHigh + half * 32 : bytes + 192 - kAtRest;
    }
    /// q of four values of a group from value i on.
    static __device__ unsigned word(const uint8_t* strip, int group, int i) {
        const unsigned fours = load_u32_by_halves(strip + group % 2 * 32 + i) >> (group / 2 * 4);
        const unsigned twos = load_u32_by_halves(strip + kAtHigh + i);
        return (fours & 0x0f0f0f0fu) | (rotated(twos, 4 - 2 * group) & 0x30303030u);
    }
    /// 4 (q - 32): in the high bits of a signed byte q - 32 is q with its first bit turned.
    static __device__ uint2 words(const uint8_t* strip, int group, int /*half*/, int t) {
        const auto signed_word = [&](int i) { return word(strip, group, i) << 2 ^ 0x80808080u; };
        return {signed_word(4 * t), signed_word(4 * t + 16)};
    }
    /// Of a group's first 16 values, and in place of a minimum of its second 16.
    static __device__ void scales(const uint8_t* strip, int pair, int half, RowScale (&scales)[2]) {
        scales[0] = scale(strip, 2 * pair, half);
        scales[1] = scale(strip, 2 * pair + 1, half);
    }
    static __device__ RowScale scale(const uint8_t* strip, int group, int half) {
        const uint8_t *rest = strip + kAtRest, *at = rest + half * 8 + group * 2;
        const float d = load_half(rest + 16) * 0.25f;
        return {d * static_cast<float>(static_cast<int8_t>(at[0])), d * static_cast<float>(static_cast<int8_t>(at[1]))};
    }
    static __device__ void add(const uint2 (&rows)[2], const RowScale (&row_scales)[2], uint2 values, float4 scales,
                               float (&sums)[4]) {
        int first[4] = {kBaseBits, kBaseBits, kBaseBits, kBaseBits};
        int second[4] = {kBaseBits, kBaseBits, kBaseBits, kBaseBits};
        multiply_int8({rows[0].x, rows[1].x}, values.x, first);
        multiply_int8({rows[0].y, rows[1].y}, values.y, second);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const RowScale& row = row_scales[i / 2];
            const float product = scaled(first[i], row.scale) + scaled(second[i], row.minimum);
            sums[i] += product * (i % 2 == 0 ? scales.x : scales.z);
        }
    }

  private:
    static constexpr int kAtHigh = kLow * kVectorBytes, kAtRest = kAtHigh + kHigh * kVectorBytes;
};

}  // namespace dgemma::cuda
