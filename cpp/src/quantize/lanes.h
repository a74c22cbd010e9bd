// Sixteen floats side by side, in the vector extensions of GCC and Clang. Each lane does what scalar code would do, in
// the same order, so it rounds the same.
#pragma once

#include <cstdint>

namespace dgemma {

constexpr int kLanes = 16;
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Floats absolute(const Floats& x) { return x < 0 ? -x : x; }
inline Floats to_floats(const Ints& x) { return __builtin_convertvector(x, Floats); }

/// The nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves it in the low bits. What comes of larger
/// numbers is ggml's nonsense, bit for bit.
inline Ints nearest(const Floats& x) {
    const Floats shifted = x + 12582912.f;
    return ((Ints)shifted & 0x007fffff) - 0x00400000;
}
inline int nearest(float x) {
    const float shifted = x + 12582912.f;
    int32_t bits;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    return (bits & 0x007fffff) - 0x00400000;
}

inline Ints clamp(const Ints& x, int low, int high) {
    const Ints at_most = x > high ? Ints{} + high : x;
    return at_most < low ? Ints{} + low : at_most;
}
inline int clamp(int x, int low, int high) { return x > high ? high : x < low ? low : x; }

}  // namespace dgemma
