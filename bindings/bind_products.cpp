#include <nanobind/stl/string.h>

#include "bindings.h"
#include "dgemma/dgemma.h"

using namespace nb::literals;

namespace {

using Weights = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Columns = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

Array2<float> multiply_rows(const Weights& weights, const std::string& type, const Columns& columns) {
    const size_t n_rows = weights.shape(0), n_cols = columns.shape(1), n = columns.shape(0);
    if (weights.shape(1) != dgemma::row_bytes(type, static_cast<int64_t>(n_cols))) {
        throw nb::value_error("the weights' rows do not have as many values as the columns");
    }
    auto* data = new float[n * n_rows];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    {
        const nb::gil_scoped_release release;
        dgemma::multiply_rows({type, static_cast<int64_t>(n_rows), static_cast<int64_t>(n_cols), weights.data(),
                               static_cast<int64_t>(n), columns.data(), data});
    }
    return Array2<float>(data, {n, n_rows}, owner);
}

}  // namespace

void init_products(nb::module_& m) {
    m.def("has_own_product", &dgemma::has_own_product, "type"_a,
          "Whether this processor has a kernel of ours for products with weights of a type.");
    m.def("multiply_rows", &multiply_rows, "weights"_a, "type"_a, "columns"_a,
          nb::sig("def multiply_rows(weights: NDArray[numpy.uint8], type: str, columns: NDArray[numpy.float32]) -> "
                  "NDArray[numpy.float32]"),
          "Rows [m, bytes] of weights times columns [n, k] rounded to 8 bits: [n, m]. Raises RequestError where there "
          "is no kernel.");
}
