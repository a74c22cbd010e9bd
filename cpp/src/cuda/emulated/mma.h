// The tensor cores' warp-wide products, for tests: lane 0 does the work of all.
#pragma once

#include <cstdint>

struct __nv_bfloat16 {
    uint16_t bits;
};

namespace dgemma::cuda {
int lane();
}

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
enum layout_t { mem_row_major };

constexpr int kSide = 16;

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
    T values[kSide][kSide];
};

template <typename Fragment, typename T>
void copy_rows(Fragment& fragment, const T* from, unsigned stride) {
    if (dgemma::cuda::lane() != 0) return;
    for (int r = 0; r < kSide; ++r) {
        for (int c = 0; c < kSide; ++c) fragment.values[r][c] = from[static_cast<unsigned>(r) * stride + static_cast<unsigned>(c)];
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

inline float as_float(__nv_bfloat16 value) { return ggml_bf16_to_fp32({value.bits}); }

template <typename D, typename A, typename B>
void mma_sync(D& d, const A& a, const B& b, const D& c) {
    if (dgemma::cuda::lane() != 0) return;
    for (int r = 0; r < kSide; ++r) {
        for (int col = 0; col < kSide; ++col) {
            float sum = c.values[r][col];
            for (int k = 0; k < kSide; ++k) sum += as_float(a.values[r][k]) * as_float(b.values[k][col]);
            d.values[r][col] = sum;
        }
    }
}

template <typename Fragment>
void store_matrix_sync(float* to, const Fragment& fragment, unsigned stride, layout_t /*layout*/) {
    if (dgemma::cuda::lane() != 0) return;
    for (int r = 0; r < kSide; ++r) {
        for (int c = 0; c < kSide; ++c) to[static_cast<unsigned>(r) * stride + static_cast<unsigned>(c)] = fragment.values[r][c];
    }
}

}  // namespace nvcuda::wmma
