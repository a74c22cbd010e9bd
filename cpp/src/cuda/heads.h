// A layer's queries, keys and values on their way from the products to attention: an RMS norm for every head, rotary
// positions, and the cache.
#pragma once

#include <cstdint>

#include "cuda/card.h"

namespace dgemma::cuda {

constexpr int kMaxHeadDim = 512;

/// Cosine and sine of the angle by which a pair of a head's values is rotated: i and i + hd / 2.
struct Turn {
    float cos, sin;
};

/// hd: values of a head, even and at most kMaxHeadDim.
struct HeadShape {
    int heads, kv_heads, head_dim;
};

/// Of n tokens; everything is on the card.
struct HeadRows {
    float* q;                               // [n, heads, hd]: normed and rotated in place
    const float *k, *v;                     // [n, kv_heads, hd]; they may be the same
    const float *q_norm, *k_norm;           // [hd]; values are normed without a weight
    const Turn* turns;                      // [n, hd / 2]
    uint16_t *cached_keys, *cached_values;  // F16 [n_cells, kv_heads, hd]
    int64_t first_cell, n_cells;            // token i's are in cell (first_cell + i) mod n_cells
};

inline bool fits(const HeadShape& shape) {
    return shape.head_dim >= 2 && shape.head_dim <= kMaxHeadDim && shape.head_dim % 2 == 0;
}

/// A warp for each head: q = rope(rms(q) q_norm), the cache's keys rope(rms(k) k_norm), its values rms(v).
void place_heads(const HeadRows& rows, const HeadShape& shape, float eps, int n, const Stream& stream);

}  // namespace dgemma::cuda
