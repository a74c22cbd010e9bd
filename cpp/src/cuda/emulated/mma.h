// The tensor cores' warp-wide products, for tests: lane 0 does the work of all, which have to come together and want
// the same.
#pragma once

#include <cstdint>
#include <cstring>

#include "warp.h"

struct __nv_bfloat16 {
    uint16_t bits;
};

namespace dgemma::cuda {

/// Error where an address or the bytes from one row to the next are not what the tensor cores take (CUDA C++
/// Programming Guide, "Warp Matrix Functions": 32 and 16 bytes), or lanes differ in them.
void check_matrix(const void* at, size_t row_bytes, Place place);

}  // namespace dgemma::cuda

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
enum layout_t { mem_row_major };

constexpr unsigned kSide = 16;

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
    float values[kSide][kSide];
};

inline float as_float(float value) { return value; }
inline float as_float(__nv_bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

template <typename Fragment, typename T>
void copy_rows(Fragment& fragment, const T* from, unsigned stride) {
    dgemma::cuda::check_matrix(from, stride * sizeof(T), dgemma::cuda::here());
    if (dgemma::cuda::lane() != 0) return;
    for (unsigned r = 0; r < kSide; ++r) {
        for (unsigned c = 0; c < kSide; ++c) fragment.values[r][c] = as_float(from[r * stride + c]);
    }
}

template <typename Fragment, typename T>
void load_matrix_sync(Fragment& fragment, const T* from, unsigned stride) {
    copy_rows(fragment, from, stride);
}

template <typename Fragment, typename T>
void load_matrix_sync(Fragment& fragment, const T* from, unsigned stride, layout_t /*layout*/) {
    copy_rows(fragment, from, stride);
}

template <typename Fragment>
void fill_fragment(Fragment& fragment, float value) {
    for (auto& row : fragment.values) {
        for (auto& x : row) x = value;
    }
}

template <typename D, typename A, typename B>
void mma_sync(D& d, const A& a, const B& b, const D& c) {
    dgemma::cuda::exchange(0, dgemma::cuda::lane(), dgemma::cuda::here());
    if (dgemma::cuda::lane() != 0) return;
    D sums = c;
    for (unsigned r = 0; r < kSide; ++r) {
        for (unsigned k = 0; k < kSide; ++k) {
            for (unsigned col = 0; col < kSide; ++col) sums.values[r][col] += a.values[r][k] * b.values[k][col];
        }
    }
    d = sums;
}

template <typename Fragment>
void store_matrix_sync(float* to, const Fragment& fragment, unsigned stride, layout_t /*layout*/) {
    dgemma::cuda::check_matrix(to, stride * sizeof(float), dgemma::cuda::here());
    if (dgemma::cuda::lane() != 0) return;
    for (unsigned r = 0; r < kSide; ++r) {
        for (unsigned c = 0; c < kSide; ++c) to[r * stride + c] = fragment.values[r][c];
    }
}

}  // namespace nvcuda::wmma
