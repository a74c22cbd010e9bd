// The scales of sixteen sub-blocks at once. x[i] holds the i-th value of each.
#pragma once

#include "quantize/lanes.h"

namespace dgemma {

/// w = q * scale - offset, q from 0 to q_max (Q4_K, Q5_K: sub-blocks of 32 values).
struct OffsetSearch {
    int q_max, n_steps;
    float first_step;  // candidates are (q_max + first_step + 0.1 * step) / range
};
struct OffsetScales {
    Floats scale, offset;
    Floats q_factor, q_origin;  // the best candidate's quants were nearest(q_factor * (x - q_origin))
};
OffsetScales search_offset_scales(const Floats x[32], const OffsetSearch& search);

/// w = q * scale, q from -32 to 31 (Q6_K: sub-blocks of 16 values). q_factor: as above, with origin 0.
struct SymmetricScales {
    Floats scale, q_factor;
};
SymmetricScales search_symmetric_scales(const Floats x[16]);

}  // namespace dgemma
