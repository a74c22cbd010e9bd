// Kernels compiled by an ordinary C++ compiler, for tests: blocks one after the other, a fiber for each thread.
// Barriers and shuffles that not all threads reach are errors, at the same place all of them, and between barriers the
// warps run one after the other in an order that changes, so that a missing barrier shows. Accesses that are not
// aligned as their type asks end the process (bindings/CMakeLists.txt), and so does a read past the end of the card's
// memory. It says nothing about memory consistency within a warp or speed.
#pragma once

#include <ggml.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "async_copy.h"
#include "cuda/card.h"
#include "int8_mma.h"
#include "mma.h"
#include "warp.h"

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

extern dim3 threadIdx, blockIdx, gridDim;

namespace dgemma::cuda {

template <typename T>
T exchange_value(T value, int from, Place place) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = exchange(bits, from, place);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

void wait_for_block(Place place);

/// Runs body() once for each thread of each block.
void run_blocks(dim3 blocks, int threads, const std::function<void()>& body);
/// Error where a card would not launch them.
void check_launch(dim3 blocks, int threads);

/// Queues work, which is done when the stream is waited for.
void give(const Stream& stream, std::function<void()> work);

inline dim3 grid(int x, int y) { return {static_cast<unsigned>(x), static_cast<unsigned>(y), 1}; }

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, int threads, const Stream& stream, Arguments... arguments) {
    check_launch(blocks, threads);
    give(stream, [=] { run_blocks(blocks, threads, [&] { kernel(arguments...); }); });
}

}  // namespace dgemma::cuda

// Where they are called from is the last argument of each.

inline void __syncthreads(dgemma::cuda::Place place = dgemma::cuda::here()) { dgemma::cuda::wait_for_block(place); }

template <typename T>
T __shfl_sync(unsigned /*mask*/, T value, int from, dgemma::cuda::Place place = dgemma::cuda::here()) {
    return dgemma::cuda::exchange_value(value, from, place);
}

template <typename T>
T __shfl_xor_sync(unsigned /*mask*/, T value, int lanes, dgemma::cuda::Place place = dgemma::cuda::here()) {
    return dgemma::cuda::exchange_value(value, dgemma::cuda::lane() ^ lanes, place);
}

template <typename T>
T __shfl_up_sync(unsigned /*mask*/, T value, unsigned lanes, dgemma::cuda::Place place = dgemma::cuda::here()) {
    const int from = dgemma::cuda::lane() - static_cast<int>(lanes);
    return dgemma::cuda::exchange_value(value, from < 0 ? dgemma::cuda::lane() : from, place);
}

inline void __syncwarp(dgemma::cuda::Place place = dgemma::cuda::here()) {
    dgemma::cuda::exchange(0, dgemma::cuda::lane(), place);
}

template <typename T>
unsigned __match_any_sync(unsigned /*mask*/, T value, dgemma::cuda::Place place = dgemma::cuda::here()) {
    unsigned same = 0;
    for (int from = 0; from < 32; ++from) {
        same |= (dgemma::cuda::exchange_value(value, from, place) == value ? 1u : 0u) << from;
    }
    return same;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }

inline long long __double_as_longlong(double value) {
    long long bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

/// To the nearest, the last whole number where there is none, 0 for what is not a number.
inline int __float2int_rn(float value) {
    if (!(std::fabs(value) < 0x1p31f)) return value > 0 ? INT32_MAX : value < 0 ? INT32_MIN : 0;
    return static_cast<int>(std::nearbyint(value));
}

struct __half {
    uint16_t bits;
};
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline __half __float2half(float value) { return {ggml_fp32_to_fp16(value)}; }
inline float __half2float(__half value) { return ggml_fp16_to_fp32(value.bits); }
inline __nv_bfloat16 __float2bfloat16(float value) { return {ggml_fp32_to_bf16(value).bits}; }
