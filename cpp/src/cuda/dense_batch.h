// How the products of one call become launches: those by weights of one type go together, so that weights of few rows
// (keys, values) do not leave a card idle.
#pragma once

#include <climits>

#include "cuda/dense.h"

namespace dgemma::cuda {

constexpr int kMostTogether = 4;
constexpr int kTileTokens = 64;

/// Products of one launch, whose tiles of rows follow each other.
struct DenseBatch {
    DenseProduct products[kMostTogether];
    int begins[kMostTogether];  // the tile of rows that is a product's first; INT_MAX where there is no product
};

struct DenseGate {
    DenseWeight gate, up;
    ProductRows gated;
};

constexpr int tiles(int n, int size) { return (n + size - 1) / size; }

// One launch each, of tiles of 8-bit and of BF16 rows (dense_products.cu, dense_bf16.cu). The type is one that
// has_dense_product() knows.
constexpr int kInt8TileRows = 64, kBf16TileRows = 128;
void launch_int8(const DenseBatch& batch, int n_tiles, const ProductRows& x, int n, int k, const Stream& stream);
void launch_int8(const DenseGate& gate, const ProductRows& x, int n, int k, const Stream& stream);
void launch_bf16(const DenseBatch& batch, int n_tiles, const ProductRows& x, int n, int k, const Stream& stream);
void launch_bf16(const DenseGate& gate, const ProductRows& x, int n, int k, const Stream& stream);

}  // namespace dgemma::cuda
