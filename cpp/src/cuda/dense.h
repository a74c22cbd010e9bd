// Products of dense weights [rows, k] and the rows x [n, k] of a canvas, on the card: out [n, rows] = x weights^T.
//
// One launch for each product, of [n / 64, rows / 64] blocks (dense_tile.cuh). A block goes through all of k in order
// and no sum is shared, so every result is the same in every run and does not depend on which other rows there are.
// Bounds: 1 <= n <= 512, k a multiple of 32 and of the values of the type's block, any number of weight rows up to
// 64 * 65535.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "cuda/product_rows.h"

namespace dgemma::cuda {

constexpr int kMaxDenseRows = 512;  // of x

/// [rows, k] on the card. Begins at a multiple of 16 bytes and may be read up to the next such multiple after its end.
struct DenseWeight {
    ggml_type type;
    const uint8_t* data;
    int64_t row_bytes;
    int rows;
};

/// Whether there are kernels for weights of this type.
bool has_dense_product(ggml_type type);

struct DenseProduct {
    DenseWeight weight;
    float* out;  // [n, weight.rows]
};

/// `count` products of the same rows x [n, k], such as queries, keys and values. RequestError outside the bounds, or
/// where x is not of 8 bits.
void multiply_dense(const DenseProduct* products, int count, const ProductRows& x, int n, int k, const Stream& stream);

/// gated [n, ffn] = gelu(gate x) * (up x), straight to rows for the next product. Gate and up are of one type and of
/// ffn rows each, a multiple of 32. RequestError as above.
void multiply_gated(const DenseWeight& gate, const DenseWeight& up, const ProductRows& x, const ProductRows& gated,
                    int n, int k, const Stream& stream);

}  // namespace dgemma::cuda
