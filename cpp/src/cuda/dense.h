// Products of dense weights [rows, k] and the rows x [n, k] of a canvas, on the card: out [n, rows] = x weights^T.
//
// x is of 8 bits or of BF16: blocks multiply 64 rows of weights by 64 of x (dense_tile.cuh), or 128 by 64
// (dense_bf16_tile.cuh). No two blocks share a sum and each is made in a fixed order, so every result is the same in
// every run and does not depend on which other rows there are. With BF16, weights are rounded to BF16 too.
// Bounds: 1 <= n <= kMaxPassRows, k a multiple of 32 and of the values of the type's block, any number of weight rows
// up to 64 * 65535.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "cuda/product_rows.h"

namespace dgemma::cuda {

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

/// `count` products of the same rows x [n, k], such as queries, keys and values: one launch for up to four of them by
/// weights of one type. RequestError outside the bounds.
void multiply_dense(const DenseProduct* products, int count, const ProductRows& x, int n, int k, const Stream& stream);

/// Among how many blocks multiply_shared() shares out the columns of a product, at most. Tiles of 8 bits of a weight
/// with a few thousand rows are hardly more than a card has multiprocessors, so that most would wait for a few.
constexpr int most_shares(Arithmetic arithmetic) { return arithmetic == Arithmetic::kInt8 ? 2 : 1; }

/// One product as parts [most_shares(), n, weight.rows] of its sums, or fewer. RequestError as above.
SharedSums multiply_shared(const DenseWeight& weight, float* parts, const ProductRows& x, int n, int k,
                           const Stream& stream);

/// gated [n, ffn] = gelu(gate x) * (up x), straight to rows for the next product, in their arithmetic. Gate and up are
/// of one type and of ffn rows each, a multiple of 32. RequestError as above.
void multiply_gated(const DenseWeight& gate, const DenseWeight& up, const ProductRows& x, const ProductRows& gated,
                    int n, int k, const Stream& stream);

}  // namespace dgemma::cuda
