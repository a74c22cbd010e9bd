// Quantised weights taken apart: small signed integers, and the scales that make them weights again.
#pragma once

#include <ggml.h>

#include <cstdint>

namespace dgemma {

constexpr int64_t kUnpacked = 256;  // values unpacked at a time, at most

/// w[i] = scales[i / sub] * q[i] - mins, mins being scales[8 + i / 32] where a type has them (`sub` is 32 then).
struct alignas(64) Unpacked {
    int8_t q[kUnpacked];
    float scales[16];
};

struct Unpacker {
    int64_t block;                                                       // values of a block
    int64_t bytes;                                                       // of a block
    int64_t sub;                                                         // values that share a scale: 16 or 32
    bool has_min;                                                        // w = scale * q - min
    void (*unpack)(const uint8_t* blocks, Unpacked& to, int64_t count);  // `count` values, at most kUnpacked
};

/// Null for a type or a processor that there is none for.
const Unpacker* find_unpacker(ggml_type type);

/// n values as floats; n is a multiple of the type's block. Asks for the next n values' bytes meanwhile: a caller that
/// walks many rows a few columns at a time has too many streams for the processor to see coming.
void unpack_floats(const Unpacker& unpacker, const uint8_t* blocks, int64_t n, float* to);

}  // namespace dgemma
