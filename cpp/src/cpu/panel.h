// The CPU's own product of quantised weights and 8-bit activations.
//
// ggml multiplies a row of weights by one column at a time and unpacks the row's bits anew for each. Here a panel, 32
// rows by 256 values, is unpacked once into signed bytes, in the order in which the processor's dot-product instruction
// wants them, and used for every column while it lies in the first-level cache: a mixture-of-experts step has about 16
// columns for each expert, the head has 256.
//
// What is computed for a row and a column depends on these two alone: the same bits for any number of threads, and for
// any columns beside it.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "cpu/int8_rows.h"

namespace dgemma {

constexpr int64_t kPanelRows = 32;

/// Whether this processor has what our products in 8 bits are made of.
bool has_int8_products();

/// Whether it has, and the type is one that can be unpacked.
bool can_multiply_panels(ggml_type type);

/// 32 rows of weights: k values each, a multiple of 32, of a type that can be multiplied, `stride` bytes apart.
struct PanelRows {
    const uint8_t* data;
    int64_t stride, k;
    ggml_type type;
};

/// out[c][0 … 31] = the rows times column c, for n columns. next: the rows of the next call, which are fetched
/// meanwhile.
void multiply_panel(const PanelRows& rows, const PanelRows& next, const Int8Row* columns, int64_t n,
                    float (*out)[kPanelRows]);

}  // namespace dgemma
