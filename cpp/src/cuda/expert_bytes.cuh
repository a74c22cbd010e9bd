// How weights of each type, as GGUF stores them, become the unsigned bytes and scales of bf16_bytes.cuh.
//
// Two warps share a row's 256 columns; each takes two times two of the eight groups. `block` is where the columns
// begin, `two` the first or second two. Scales are in the order in which the groups are taken.
#pragma once

#include "cuda/bf16_bytes.cuh"

namespace dgemma::cuda {

constexpr int kShareGroups = 4;

/// Every other group: rows may end between any two.
template <typename Groups>
struct ShareBytes {
    static constexpr bool kReadsAgain = false;

    static __device__ int group(int share, int two, int i) { return 4 * two + 2 * i + share; }

    static __device__ void words(const uint8_t* block, int share, int two, int t, uint2 (&words)[2]) {
        constexpr unsigned kTurned = Groups::kHasMinimum ? 0 : 0x80808080u;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint2 q = Groups::words(block, group(share, two, i), t);
            words[i] = {q.x ^ kTurned, q.y ^ kTurned};
        }
    }

    static __device__ void scales(const uint8_t* block, int share, unsigned (&scales)[kShareGroups]) {
#pragma unroll
        for (int i = 0; i < kShareGroups; ++i) {
            RowScale scale[1];
            Groups::scales(block, group(share, i / 2, i % 2), scale);
            scales[i] = bytes_scale<Groups::kHasMinimum>(scale[0]);
        }
    }
};

/// Two groups that lie in the halves of the same bytes: pairs `share` and `share` + 2.
struct ShareBytesOfK {
    static __device__ int group(int share, int two, int i) { return 4 * two + 2 * share + i; }

    /// high: what the groups of high halves are multiplied by.
    static __device__ void scales(const uint8_t* block, int share, float high, unsigned (&scales)[kShareGroups]) {
        const float d = load_half(block) * kBytesScale, m = load_half(block + 2) * kBytesMinimum;
#pragma unroll
        for (int two = 0; two < 2; ++two) {
            const SmallScales small = load_small_scales(block, share, two);
            scales[2 * two] = bf16_pair(d * small.scale(0), m * small.minimum(0));
            scales[2 * two + 1] = bf16_pair(d * high * small.scale(1), m * small.minimum(1));
        }
    }
};

/// High halves stay where they are, 16 times as large.
template <>
struct ShareBytes<Q4_KGroups> : ShareBytesOfK {
    static constexpr bool kReadsAgain = false;

    static __device__ void words(const uint8_t* block, int share, int two, int t, uint2 (&words)[2]) {
        const uint8_t* at = block + 16 + share * 32 + two * 64 + 4 * t;
        const unsigned x = load_u32(at), y = load_u32(at + 16);
        words[0] = {x & 0x0f0f0f0fu, y & 0x0f0f0f0fu};
        words[1] = {x & 0xf0f0f0f0u, y & 0xf0f0f0f0u};
    }

    static __device__ void scales(const uint8_t* block, int share, unsigned (&scales)[kShareGroups]) {
        ShareBytesOfK::scales(block, share, 0.0625f, scales);
    }
};

/// The fifth bits of a pair's two groups are neighbours: with the low halves they come to bits 4 and 5, so the high
/// halves go to bits 1 to 4, twice as large.
template <>
struct ShareBytes<Q5_KGroups> : ShareBytesOfK {
    static constexpr bool kReadsAgain = true;  // the fifth bits, for which there are no registers to keep them

    static __device__ void words(const uint8_t* block, int share, int two, int t, uint2 (&words)[2]) {
        const uint8_t *at = block + 48 + share * 32 + two * 64 + 4 * t, *fifth = block + 16 + 4 * t;
        const unsigned x = load_u32(at), y = load_u32(at + 16);
        const auto high = [&](int offset) {
            const unsigned bits = load_u32(fifth + offset);
            return two == 0 ? bits << (4 - 2 * share) : bits >> 2 * share;
        };
        const unsigned high_x = high(0), high_y = high(16);
        words[0] = {(x & 0x0f0f0f0fu) | (high_x & 0x10101010u), (y & 0x0f0f0f0fu) | (high_y & 0x10101010u)};
        words[1] = {(x >> 3 & 0x1e1e1e1eu) | (high_x & 0x20202020u), (y >> 3 & 0x1e1e1e1eu) | (high_y & 0x20202020u)};
    }

    static __device__ void scales(const uint8_t* block, int share, unsigned (&scales)[kShareGroups]) {
        ShareBytesOfK::scales(block, share, 0.5f, scales);
    }
};

}  // namespace dgemma::cuda
