// The CPU's own product of quantised weights and 8-bit activations.
//
// ggml multiplies a row of weights by one column at a time and unpacks the row's bits anew for each. Here 32 rows are
// unpacked once, into a panel of signed bytes in the order in which the processor's dot-product instruction wants them,
// and used for every column: a mixture-of-experts step has about 16 columns for each expert, the head has 256.
//
// What is computed for a row and a column depends on these two alone: the same bits for any number of threads, and for
// any columns beside it.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <vector>

#include "cpu/int8_rows.h"
#include "cpu/unpack.h"

namespace dgemma {

constexpr int64_t kPanelRows = 32;

/// 32 rows of a weight, unpacked. `sub`: 16 or 32 values share a scale.
struct Panel {
    int64_t k = 0, sub = 0;
    bool has_min = false;
    std::vector<int8_t> values;   // [k / 4][32 rows][4]
    std::vector<float> scales;    // [k / sub][32 rows]
    std::vector<int32_t> starts;  // [k / sub][32 rows]: -128 * (sum of the values), for the activations' offset
    std::vector<float> mins;      // [k / 32][32 rows], where has_min
};

/// Whether this processor can, and the type is one that can be unpacked.
bool can_multiply_panels(ggml_type type);

/// rows: 32 rows of k values of a type that can be multiplied, `stride` bytes apart.
void unpack_panel(const uint8_t* rows, int64_t stride, int64_t k, ggml_type type, Panel& panel);

/// out[c][0 … 31] = the panel's rows times column c. `out` has 32 floats for each column, at out + c * out_stride.
void multiply_panel(const Panel& panel, const Int8Row* columns, int64_t n_columns, float* out, int64_t out_stride);

}  // namespace dgemma
