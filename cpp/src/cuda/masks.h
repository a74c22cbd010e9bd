// Which cells of the cache a query sees, as the F16 masks of ggml's attention, written where they are read: from the
// host they would be megabytes a pass. graph/masks.h is their definition.
#pragma once

#include <cstdint>

#include "cuda/card.h"

namespace dgemma::cuda {

/// A mask [padded, keys] of queries at positions n_past … n_past + n - 1: 0 where a query sees the cell and -inf
/// elsewhere; rows beyond n see nothing. Position p is in cell p mod cells.
struct MaskShape {
    int n_past, n, padded;
    int keys, cells;  // keys: a multiple of 8, at most `cells`
    int window;       // 0: everything before is seen; else window - 1 positions
    bool is_causal;   // before and up to the query itself; else before n_past, and all of the queries
};

/// mask: 16-byte aligned. Positions are below 2^30.
void write_mask(const MaskShape& shape, uint16_t* mask, const Stream& stream);

}  // namespace dgemma::cuda
