// One product outside of any graph: what the tests compare with plain arithmetic.
#include <algorithm>
#include <vector>

#include "cpu/panel.h"
#include "dgemma/dgemma.h"
#include "support/types.h"

namespace dgemma {

namespace {

const PanelKernel& find_kernel(const std::string& name) {
    for (const PanelKernel* kernel : panel_kernels()) {
        if (kernel->name == name) return *kernel;
    }
    throw RequestError("there is no kernel " + name + " here");
}

}  // namespace

std::vector<std::string> product_kernels() {
    std::vector<std::string> names;
    for (const PanelKernel* kernel : panel_kernels()) names.emplace_back(kernel->name);
    return names;
}

bool has_own_product(const std::string& type) { return can_multiply_panels(weight_type(type)); }

void multiply_rows(const RowProduct& product) {
    const ggml_type type = weight_type(product.type);
    if (!can_multiply_panels(type)) throw RequestError("there is no product of ours for " + product.type + " here");
    const PanelKernel& kernel = product.kernel.empty() ? *panel_kernels().front() : find_kernel(product.kernel);
    if (product.n_cols % kGroup != 0 || product.n_rows % kPanelRows != 0) {
        throw RequestError("rows and columns must be multiples of 32");
    }
    const auto k = product.n_cols, bytes = static_cast<int64_t>(row_bytes(product.type, k));
    std::vector<uint8_t> rows(static_cast<size_t>(product.n * int8_row_bytes(k)));
    std::vector<Int8Row> columns;
    for (int64_t i = 0; i < product.n; ++i) {
        uint8_t* row = rows.data() + i * int8_row_bytes(k);
        quantise_row(product.columns + i * k, row, k);
        columns.push_back(int8_row(row, k));
    }
    std::vector<float> block(static_cast<size_t>(product.n * kPanelRows));
    const auto out = reinterpret_cast<float (*)[kPanelRows]>(block.data());
    for (int64_t first = 0; first < product.n_rows; first += kPanelRows) {
        const auto* weights = static_cast<const uint8_t*>(product.weights) + first * bytes;
        const PanelRows rows{weights, bytes, k, type};
        kernel.multiply(rows, rows, columns.data(), product.n, out);
        for (int64_t i = 0; i < product.n; ++i) {
            std::copy_n(out[i], kPanelRows, product.result + i * product.n_rows + first);
        }
    }
}

}  // namespace dgemma
