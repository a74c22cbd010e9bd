#include "quantize/k_quants.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "quantize/scale_search.h"

namespace dgemma {
namespace {

constexpr int kBlock = 256;

// Q4_K, 144 bytes for 256 weights in 8 sub-blocks of 32:  w = d * scale[j] * q - dmin * offset[j]
//
//     | d f16 | dmin f16 | scales 12 bytes | q 128 bytes |
//     scales: byte j     = scale[j] & 63   | high 2 bits of scale[j + 4] << 6     j < 4
//             byte j + 4 = offset[j] & 63  | high 2 bits of offset[j + 4] << 6
//             byte j + 8 = low 4 bits of scale[j + 4] | low 4 bits of offset[j + 4] << 4
//     q:      byte 32 * p + i = q of sub-block 2p, value i | q of sub-block 2p + 1, value i << 4
//
// Q5_K, 176 bytes: the same with 32 bytes before q for the fifth bits: bit j of byte i is that of sub-block j, value i.
struct OffsetBlock {
    uint16_t d, dmin;
    uint8_t scales[12];
};
constexpr int kSubBlocks = 8, kSubValues = 32;

// Q6_K, 210 bytes for 256 weights in 16 sub-blocks of 16:  w = d * scale[j] * (q - 32)
//
//     | low 4 bits 128 bytes | high 2 bits 64 bytes | scales 16 int8 | d f16 |
//     for each half of 128 values, i < 32:
//     low:  byte i      = value i | value i + 64 << 4        byte i + 32 = value i + 32 | value i + 96 << 4
//     high: byte i      = value i | value i + 32 << 2 | value i + 64 << 4 | value i + 96 << 6
struct SymmetricBlock {
    uint8_t low[128], high[64];
    int8_t scales[16];
    uint16_t d;
};
static_assert(sizeof(OffsetBlock) == 16 && sizeof(SymmetricBlock) == 210, "the layouts above have no gaps");

/// What the search found for one sub-block.
struct SubBlock {
    float scale, offset, q_factor, q_origin;
};

/// Scales and offsets of a block as 6-bit shares of the largest.
void pack_scales(const SubBlock* found, OffsetBlock& block, uint8_t scales[kSubBlocks], uint8_t offsets[kSubBlocks]) {
    float largest_scale = 0, largest_offset = 0;
    for (int j = 0; j < kSubBlocks; ++j) {
        largest_scale = found[j].scale > largest_scale ? found[j].scale : largest_scale;
        largest_offset = found[j].offset > largest_offset ? found[j].offset : largest_offset;
    }
    const float to_scale = largest_scale > 0 ? 63.f / largest_scale : 0.f;
    const float to_offset = largest_offset > 0 ? 63.f / largest_offset : 0.f;
    for (int j = 0; j < kSubBlocks; ++j) {
        scales[j] = std::min<uint8_t>(63, static_cast<uint8_t>(nearest(to_scale * found[j].scale)));
        offsets[j] = std::min<uint8_t>(63, static_cast<uint8_t>(nearest(to_offset * found[j].offset)));
    }
    for (int j = 0; j < 4; ++j) {
        block.scales[j] = static_cast<uint8_t>(scales[j] | (scales[j + 4] >> 4) << 6);
        block.scales[j + 4] = static_cast<uint8_t>(offsets[j] | (offsets[j + 4] >> 4) << 6);
        block.scales[j + 8] = static_cast<uint8_t>((scales[j + 4] & 15) | (offsets[j + 4] & 15) << 4);
    }
    block.d = ggml_fp32_to_fp16(largest_scale / 63.f);
    block.dmin = ggml_fp32_to_fp16(largest_offset / 63.f);
}

/// One block of Q4_K (q_max 15) or Q5_K (31) from its eight searched sub-blocks.
void pack_offset_block(const float* x, const SubBlock* found, int q_max, uint8_t* y) {
    OffsetBlock block;
    uint8_t scales[kSubBlocks], offsets[kSubBlocks];
    pack_scales(found, block, scales, offsets);
    const float d = ggml_fp16_to_fp32(block.d), dmin = ggml_fp16_to_fp32(block.dmin);
    int q[kBlock];
    for (int j = 0; j < kSubBlocks; ++j) {
        const float scale = d * scales[j], offset = dmin * offsets[j];
        const SubBlock& sub = found[j];
        for (int i = kSubValues * j; i < kSubValues * (j + 1); ++i) {
            // Where the stored scale is nothing, ggml leaves the quants that the search had.
            const float level = scale != 0 ? (x[i] + offset) / scale : sub.q_factor * (x[i] - sub.q_origin);
            q[i] = clamp(nearest(level), 0, q_max);
        }
    }
    std::memcpy(y, &block, sizeof block);
    y += sizeof block;
    if (q_max > 15) {
        for (int i = 0; i < kSubValues; ++i) {
            int bits = 0;
            for (int j = 0; j < kSubBlocks; ++j) bits |= (q[kSubValues * j + i] >> 4) << j;
            *y++ = static_cast<uint8_t>(bits);
        }
    }
    for (int i = 0; i < kBlock; i += 2 * kSubValues) {
        for (int j = i; j < i + kSubValues; ++j)
            *y++ = static_cast<uint8_t>((q[j] & 15) | (q[j + kSubValues] & 15) << 4);
    }
}

/// Two blocks fill the lanes; the second may be absent.
void quantize_two(const float* x, uint8_t* y, size_t block_bytes, int64_t n_blocks, const OffsetSearch& search) {
    Floats columns[kSubValues];
    for (int lane = 0; lane < kLanes; ++lane) {
        const bool there = lane < n_blocks * kSubBlocks;
        for (int i = 0; i < kSubValues; ++i) columns[i][lane] = there ? x[kSubValues * lane + i] : 0;
    }
    const OffsetScales found = search_offset_scales(columns, search);
    SubBlock subs[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
        subs[lane] = {found.scale[lane], found.offset[lane], found.q_factor[lane], found.q_origin[lane]};
    }
    for (int64_t b = 0; b < n_blocks; ++b) {
        pack_offset_block(x + kBlock * b, subs + kSubBlocks * b, search.q_max,
                          y + block_bytes * static_cast<size_t>(b));
    }
}

void quantize_offset(const float* x, uint8_t* y, int64_t n_blocks, ggml_type type, const OffsetSearch& search) {
    const size_t bytes = ggml_type_size(type);
    for (int64_t b = 0; b < n_blocks; b += 2) {
        quantize_two(x + kBlock * b, y + bytes * static_cast<size_t>(b), bytes, std::min<int64_t>(2, n_blocks - b),
                     search);
    }
}

void quantize_q4_K(const float* x, uint8_t* y, int64_t n_blocks) {
    quantize_offset(x, y, n_blocks, GGML_TYPE_Q4_K, {15, 20, -1.f});
}

void quantize_q5_K(const float* x, uint8_t* y, int64_t n_blocks) {
    quantize_offset(x, y, n_blocks, GGML_TYPE_Q5_K, {31, 15, -0.5f});
}

void pack_symmetric_block(const float* x, const SymmetricScales& found, SymmetricBlock& block) {
    constexpr int kSub = 16;
    float largest = 0;  // with its sign
    for (int j = 0; j < kLanes; ++j)
        largest = std::fabs(found.scale[j]) > std::fabs(largest) ? found.scale[j] : largest;
    std::memset(&block, 0, sizeof block);
    if (std::fabs(largest) < 1e-15f) return;
    const float to_scale = -128.f / largest;
    block.d = ggml_fp32_to_fp16(1 / to_scale);
    const float d = ggml_fp16_to_fp32(block.d);
    int q[kBlock];
    for (int j = 0; j < kLanes; ++j) {
        block.scales[j] = static_cast<int8_t>(std::min(127, nearest(to_scale * found.scale[j])));
        const float scale = d * block.scales[j], factor = found.q_factor[j];
        for (int i = kSub * j; i < kSub * (j + 1); ++i) {
            const int level = clamp(nearest(scale != 0 ? x[i] / scale : factor * x[i]), -32, 31) + 32;
            q[i] = scale == 0 && factor == 0 ? 0 : level;
        }
    }
    for (int half = 0; half < 2; ++half) {
        const int* v = q + 128 * half;
        for (int i = 0; i < 32; ++i) {
            block.low[64 * half + i] = static_cast<uint8_t>((v[i] & 15) | (v[i + 64] & 15) << 4);
            block.low[64 * half + i + 32] = static_cast<uint8_t>((v[i + 32] & 15) | (v[i + 96] & 15) << 4);
            block.high[32 * half + i] =
                static_cast<uint8_t>(v[i] >> 4 | v[i + 32] >> 4 << 2 | v[i + 64] >> 4 << 4 | v[i + 96] >> 4 << 6);
        }
    }
}

void quantize_q6_K(const float* x, uint8_t* y, int64_t n_blocks) {
    for (int64_t b = 0; b < n_blocks; ++b, x += kBlock, y += sizeof(SymmetricBlock)) {
        Floats columns[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) {
            for (int i = 0; i < kLanes; ++i) columns[i][lane] = x[kLanes * lane + i];
        }
        SymmetricBlock block;
        pack_symmetric_block(x, search_symmetric_scales(columns), block);
        std::memcpy(y, &block, sizeof block);
    }
}

/// Rows of several tempers, small integers among them, where ties and equal candidates are.
std::vector<float> samples(int64_t n) {
    std::vector<float> x(static_cast<size_t>(n));
    uint32_t state = 1;
    for (int64_t i = 0; i < n; ++i) {
        state = state * 1664525u + 1013904223u;
        const float noise = static_cast<float>(state >> 8) / (1 << 24) - 0.5f;
        const int64_t temper = i / kBlock % 4;
        x[static_cast<size_t>(i)] = temper == 0   ? noise
                                    : temper == 1 ? noise * noise * noise
                                    : temper == 2 ? std::floor(noise * 8)
                                                  : noise + 0.4f;
    }
    return x;
}

BlockQuantizer tried(ggml_type type, BlockQuantizer quantizer) {
    constexpr int64_t kTried = 65;  // odd: lanes stay empty at the end
    const std::vector<float> x = samples(kTried * kBlock);
    std::vector<uint8_t> ours(kTried * ggml_type_size(type)), theirs(ours.size());
    quantizer(x.data(), ours.data(), kTried);
    ggml_quantize_chunk(type, x.data(), theirs.data(), 0, kTried, kBlock, nullptr);
    return ours == theirs ? quantizer : nullptr;
}

}  // namespace

BlockQuantizer fast_quantizer(ggml_type type) {
    static const BlockQuantizer q4 = tried(GGML_TYPE_Q4_K, quantize_q4_K);
    static const BlockQuantizer q5 = tried(GGML_TYPE_Q5_K, quantize_q5_K);
    static const BlockQuantizer q6 = tried(GGML_TYPE_Q6_K, quantize_q6_K);
    return type == GGML_TYPE_Q4_K ? q4 : type == GGML_TYPE_Q5_K ? q5 : type == GGML_TYPE_Q6_K ? q6 : nullptr;
}

}  // namespace dgemma
