// The parts of a dense product that a block finds by its place in the grid, [tiles of tokens, tiles of rows].
#pragma once

#include "cuda/dense_batch.h"
#include "cuda/group_product.cuh"

namespace dgemma::cuda {

constexpr int kTokensOfMma = 8;

/// The rows that a tile multiplies weights by.
struct TileTokens {
    ProductRows rows;
    int first, count, k;
    int width;  // from one row to the next
};

__device__ inline TileTokens tile_tokens(const ProductRows& x, int n, int k) {
    const int first = static_cast<int>(blockIdx.x) * kTileTokens, left = n - first;
    return {x, first, left < kTileTokens ? left : kTileTokens, k, k};
}

/// Whose rows a tile is of, and its first.
struct BatchTile {
    int product, first;
};

__device__ inline BatchTile batch_tile(const DenseBatch& batch, int tile_rows) {
    const int tile = static_cast<int>(blockIdx.y);
    int product = 0;
#pragma unroll
    for (int i = 1; i < kMostTogether; ++i) product += tile >= batch.begins[i] ? 1 : 0;
    return {product, (tile - batch.begins[product]) * tile_rows};
}

}  // namespace dgemma::cuda
