// How the products of one call become launches: those by weights of one type go together, so that weights of few rows
// (keys, values) do not leave a card idle.
#pragma once

#include <climits>

#include "cuda/dense.h"

namespace dgemma::cuda {

constexpr int kMostTogether = 4;
constexpr int kTileTokens = 64;

/// A product of some of x's columns, which are all of the weight's.
struct DensePart {
    DenseProduct product;
    int first_column, columns;
};

/// Products of one launch, whose tiles of rows follow each other.
struct DenseBatch {
    DensePart parts[kMostTogether];
    int begins[kMostTogether];  // the tile of rows that is a product's first; INT_MAX where there is no product
    int n_tiles;
};

struct DenseGate {
    DenseWeight gate, up;
    ProductRows gated;
};

constexpr int tiles(int n, int size) { return (n + size - 1) / size; }

/// 1 <= count <= kMostTogether
DenseBatch batch_of(const DensePart* parts, int count, int tile_rows);

// One launch each, for rows of 8 bits and of BF16 (dense_products.cu, dense_bf16.cu): of at most kMostTogether products
// by weights of a type that has_dense_product() knows, in tiles of kLeastTileRows rows or more. k: all of x's columns,
// and with BF16 all of each product's.
constexpr int kLeastTileRows = 64;
void launch_int8(const DensePart* parts, int count, const ProductRows& x, int n, int k, const Stream& stream);
void launch_int8(const DenseGate& gate, const ProductRows& x, int n, int k, const Stream& stream);
void launch_bf16(const DensePart* parts, int count, const ProductRows& x, int n, int k, const Stream& stream);
void launch_bf16(const DenseGate& gate, const ProductRows& x, int n, int k, const Stream& stream);

}  // namespace dgemma::cuda
