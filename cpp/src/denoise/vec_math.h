// exp and tanh in plain C++ that compilers turn into SIMD: no branch, no table, no call.
#pragma once

#include <cstdint>
#include <cstring>

namespace dgemma {

/// e^x within 2 ulp for x in [-87, 88]; 0 below, clamped above.
inline float fast_exp(float x) {
    constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const float clamped = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float shifted = clamped * kLog2E + kRound;
    const float n = shifted - kRound;
    const float r = (clamped - n * kLn2High) - n * kLn2Low;  // |r| <= ln(2) / 2
    // Taylor's terms, the last two adjusted to the interval (Cephes expf).
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const float y = p * (r * r) + r + 1.0f;
    uint32_t bits;  // unsigned: what is shifted out is meant to be lost
    std::memcpy(&bits, &shifted, sizeof bits);
    const uint32_t scale_bits = (bits << 23) + (127u << 23);  // the low bits of `shifted` hold n; 2^n
    float scale;
    std::memcpy(&scale, &scale_bits, sizeof scale);
    return x < -87.0f ? 0.0f : y * scale;
}

/// tanh(x) within 1.2e-7 absolute.
inline float fast_tanh(float x) {
    const float magnitude = x < 0.0f ? -x : x;
    const float t = fast_exp(-2.0f * magnitude);
    const float y = (1.0f - t) / (1.0f + t);
    return x < 0.0f ? -y : y;
}

}  // namespace dgemma
