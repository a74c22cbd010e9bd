// How weights of each type, as GGUF stores them, become the unsigned bytes and scales of bf16_bytes.cuh: those of the
// groups that one of four warps takes of kDepth columns.
#pragma once

#include "cuda/bf16_bytes.cuh"

namespace dgemma::cuda {

/// `block`: where the row's 256 columns begin; a warp takes groups 2 share and 2 share + 1 of them.
template <typename Groups>
struct ShareBytes {
    static __device__ void words(const uint8_t* block, int share, int t, uint2 (&words)[2]) {
        constexpr unsigned kTurned = Groups::kHasMinimum ? 0 : 0x80808080u;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint2 q = Groups::words(block, 2 * share + i, t);
            words[i] = {q.x ^ kTurned, q.y ^ kTurned};
        }
    }

    static __device__ void scales(const uint8_t* block, int share, unsigned (&scales)[2]) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            RowScale scale[1];
            Groups::scales(block, 2 * share + i, scale);
            scales[i] = bytes_scale<Groups::kHasMinimum>(scale[0]);
        }
    }
};

/// Two groups lie in the low and the high halves of the same bytes: the high ones stay where they are, 16 times as
/// large.
template <>
struct ShareBytes<Q4_KGroups> {
    static __device__ void words(const uint8_t* block, int share, int t, uint2 (&words)[2]) {
        const uint8_t* at = block + 16 + share * 32 + 4 * t;
        const unsigned x = load_u32(at), y = load_u32(at + 16);
        words[0] = {x & 0x0f0f0f0fu, y & 0x0f0f0f0fu};
        words[1] = {x & 0xf0f0f0f0u, y & 0xf0f0f0f0u};
    }

    static __device__ void scales(const uint8_t* block, int share, unsigned (&scales)[2]) {
        const SmallScales small = load_small_scales(block, share);
        const float d = load_half(block) * kBytesScale, m = load_half(block + 2) * kBytesMinimum;
        scales[0] = bf16_pair(d * small.scale(0), m * small.minimum(0));
        scales[1] = bf16_pair(d * 0.0625f * small.scale(1), m * small.minimum(1));
    }
};

template <>
struct ShareBytes<Q5_KGroups> {
    static __device__ void words(const uint8_t* block, int share, int t, uint2 (&words)[2]) {
        const uint8_t *at = block + 48 + share * 32 + 4 * t, *fifth = block + 16 + 4 * t;
        const unsigned x = load_u32(at), y = load_u32(at + 16);
        const unsigned high_x = load_u32(fifth) >> 2 * share, high_y = load_u32(fifth + 16) >> 2 * share;
        words[0] = {(x & 0x0f0f0f0fu) | (high_x << 4 & 0x10101010u), (y & 0x0f0f0f0fu) | (high_y << 4 & 0x10101010u)};
        words[1] = {(x >> 4 & 0x0f0f0f0fu) | (high_x << 3 & 0x10101010u),
                    (y >> 4 & 0x0f0f0f0fu) | (high_y << 3 & 0x10101010u)};
    }

    static __device__ void scales(const uint8_t* block, int share, unsigned (&scales)[2]) {
        const SmallScales small = load_small_scales(block, share);
        const float d = load_half(block) * kBytesScale, m = load_half(block + 2) * kBytesMinimum;
#pragma unroll
        for (int i = 0; i < 2; ++i) scales[i] = bf16_pair(d * small.scale(i), m * small.minimum(i));
    }
};

}  // namespace dgemma::cuda
