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
#include <vector>

#include "cpu/int8_rows.h"

namespace dgemma {

constexpr int64_t kPanelRows = 32;
constexpr int64_t kPanelValues = 256;  // of a row, at most

/// 32 rows of weights: k values each, a multiple of 32, of a type that can be multiplied, `stride` bytes apart.
struct PanelRows {
    const uint8_t* data;
    int64_t stride, k;
    ggml_type type;
};

/// out[c][0 … 31] = the rows times column c, for n columns. next: the rows of the next call, which are fetched
/// meanwhile.
using MultiplyPanel = void (*)(const PanelRows& rows, const PanelRows& next, const Int8Row* columns, int64_t n,
                               float (*out)[kPanelRows]);

/// For processors with an extension. All kernels give the same bits: the sums of integers are exact, and what is done
/// in F32 is done in one order.
struct PanelKernel {
    const char* name;  // of the extension
    bool (*supported)();
    bool (*can_multiply)(ggml_type type);
    MultiplyPanel multiply;
};

/// Those that this processor supports, the fastest first, which is the one that is used.
const std::vector<const PanelKernel*>& panel_kernels();

/// Whether there is one, and for this type.
bool can_multiply_panels(ggml_type type);

/// With the first kernel, which can_multiply_panels().
void multiply_panel(const PanelRows& rows, const PanelRows& next, const Int8Row* columns, int64_t n,
                    float (*out)[kPanelRows]);

extern const PanelKernel kAvx512Panels, kAvx2Panels;

}  // namespace dgemma
