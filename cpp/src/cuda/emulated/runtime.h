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
#include "bf16_mma.h"
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
void run_blocks(dim3 blocks, int threads, size_t n_shared, const std::function<void()>& body);
/// Error where a card would not launch them.
void check_launch(dim3 blocks, int threads, size_t n_shared);

/// Queues work, which is done when the stream is waited for.
void give(const Stream& stream, std::function<void()> work);

/// The shared memory that a launch asked for; Error where that was not n_bytes.
void* shared_memory(size_t n_bytes);

inline dim3 grid(int x, int y) { return {static_cast<unsigned>(x), static_cast<unsigned>(y), 1}; }

template <typename... Parameters, typename... Arguments>
void launch_shared(void (*kernel)(Parameters...), dim3 blocks, int threads, size_t n_shared, const Stream& stream,
                   Arguments... arguments) {
    check_launch(blocks, threads, n_shared);
    give(stream, [=] { run_blocks(blocks, threads, n_shared, [&] { kernel(arguments...); }); });
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, int threads, const Stream& stream, Arguments... arguments) {
    launch_shared(kernel, blocks, threads, 0, stream, arguments...);
}

template <typename T>
T& dynamic_shared() {
    return *static_cast<T*>(shared_memory(sizeof(T)));
}

/// All that a launch asked for.
unsigned char* dynamic_bytes();

size_t most_shared();
constexpr int multiprocessors() { return 1; }

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

/// Byte i of the result is the one that bits 4i … 4i + 2 of `selector` name, of the eight of low and high.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; ++i) {
        result |= static_cast<unsigned>(bytes >> (selector >> (4 * i) & 7) * 8 & 255u) << (8 * i);
    }
    return result;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
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
