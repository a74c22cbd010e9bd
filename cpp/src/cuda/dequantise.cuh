// One value of an embedding row, by type. The layouts are those of GGUF; `row` begins a row, so every block of ours
// lies at an even address.
#pragma once

#include "runtime.h"

namespace dgemma::cuda {

__device__ inline uint16_t load_u16(const uint8_t* at) { return *reinterpret_cast<const uint16_t*>(at); }
__device__ inline float load_half(const uint8_t* at) { return __half2float(__ushort_as_half(load_u16(at))); }

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

/// 144 bytes for 256 values: half d, half m · 12 bytes with 6-bit scales and minima of 8 groups of 32 · 4-bit q[256],
/// two groups to 32 bytes, the first in the low halves. Value: d scale q - m minimum.
struct Q4_KRows {
    static __device__ float value(const uint8_t* row, int column) {
        const uint8_t* block = row + column / 256 * 144;
        const int group = column % 256 / 32;
        const uint8_t* packed = block + 4;
        int scale, minimum;
        if (group < 4) {
            scale = packed[group] & 63;
            minimum = packed[group + 4] & 63;
        } else {  // the high two bits lie above those of the first four groups
            scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4);
            minimum = (packed[group + 4] >> 4) | (packed[group] >> 6 << 4);
        }
        const int pair = block[16 + group / 2 * 32 + column % 32];
        const int q = group % 2 == 0 ? pair & 15 : pair >> 4;
        return load_half(block) * static_cast<float>(scale) * static_cast<float>(q) -
               load_half(block + 2) * static_cast<float>(minimum);
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
