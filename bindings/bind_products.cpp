#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "dgemma/dgemma.h"

using namespace nb::literals;

namespace {

using Weights = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Columns = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Heads = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

Array2<float> multiply_rows(const Weights& weights, const std::string& type, const Columns& columns,
                            const std::string& kernel) {
    const size_t n_rows = weights.shape(0), n_cols = columns.shape(1), n = columns.shape(0);
    if (weights.shape(1) != dgemma::row_bytes(type, static_cast<int64_t>(n_cols))) {
        throw nb::value_error("the weights' rows do not have as many values as the columns");
    }
    auto* data = new float[n * n_rows];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    {
        const nb::gil_scoped_release release;
        dgemma::multiply_rows({type, static_cast<int64_t>(n_rows), static_cast<int64_t>(n_cols), weights.data(),
                               static_cast<int64_t>(n), columns.data(), data, kernel});
    }
    return Array2<float>(data, {n, n_rows}, owner);
}

std::vector<double> time_product(const std::string& device, const Weights& weights, const std::string& type,
                                 const Columns& columns, int n_nodes) {
    const int64_t n_cols = static_cast<int64_t>(columns.shape(1));
    if (weights.shape(1) != dgemma::row_bytes(type, n_cols)) {
        throw nb::value_error("the weights' rows do not have as many values as the columns");
    }
    const nb::gil_scoped_release release;
    return dgemma::time_product(device,
                                {type,
                                 static_cast<int64_t>(weights.shape(0)),
                                 n_cols,
                                 weights.data(),
                                 static_cast<int64_t>(columns.shape(0)),
                                 columns.data(),
                                 nullptr,
                                 {}},
                                n_nodes);
}

Array2<float> norm_rows(const Columns& x, const Values& weight, float eps, int n_threads) {
    const size_t n = x.shape(0), n_cols = x.shape(1);
    if (weight.shape(0) != n_cols) throw nb::value_error("the weight does not have a value for each column");
    auto* data = new float[n * n_cols];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    {
        const nb::gil_scoped_release release;
        dgemma::norm_rows(
            {static_cast<int64_t>(n), static_cast<int64_t>(n_cols), x.data(), weight.data(), eps, n_threads, data});
    }
    return Array2<float>(data, {n, n_cols}, owner);
}

Array2<float> multiply_soft(const Columns& z, const Weights& embedding, const std::string& type, int64_t n_cols,
                            float dropped_mass, int n_threads) {
    const size_t n = z.shape(0), n_rows = z.shape(1), columns = static_cast<size_t>(n_cols);
    if (embedding.shape(0) != n_rows || embedding.shape(1) != dgemma::row_bytes(type, n_cols)) {
        throw nb::value_error("the embedding is not [columns of z, n_cols]");
    }
    auto* data = new float[n * columns];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    {
        const nb::gil_scoped_release release;
        dgemma::multiply_soft({z.data(), static_cast<int>(n), type, static_cast<int64_t>(n_rows), n_cols,
                               embedding.data(), dropped_mass, n_threads, data});
    }
    return Array2<float>(data, {n, columns}, owner);
}

Array3<float> attend_rows(const Heads& q, const Heads& k, const Heads& v, const Columns& mask, int n_threads) {
    const size_t n = q.shape(0), heads = q.shape(1), head_dim = q.shape(2);
    const size_t keys = k.shape(0), kv_heads = k.shape(1);
    if (k.shape(2) != head_dim || v.shape(0) != keys || v.shape(1) != kv_heads || v.shape(2) != head_dim) {
        throw nb::value_error("keys and values are not both [keys, KV heads, width of q's heads]");
    }
    if (mask.shape(0) != n || mask.shape(1) != keys) throw nb::value_error("the mask is not [queries, keys]");
    auto* data = new float[n * heads * head_dim];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    {
        const nb::gil_scoped_release release;
        const auto size = [](size_t x) { return static_cast<int64_t>(x); };
        dgemma::attend_rows({size(head_dim), size(heads), size(kv_heads), size(n), size(keys), q.data(), k.data(),
                             v.data(), mask.data(), n_threads, data});
    }
    return Array3<float>(data, {n, heads, head_dim}, owner);
}

}  // namespace

void init_products(nb::module_& m) {
    m.def("time_copy", &dgemma::time_copy, "device"_a, "n_bytes"_a, "n_nodes"_a,
          nb::call_guard<nb::gil_scoped_release>(),
          "Seconds of a copy of n_bytes on one of ggml's devices, of a few runs of a graph of n_nodes of them.");
    m.def("time_product", &time_product, "device"_a, "weights"_a, "type"_a, "columns"_a, "n_nodes"_a,
          nb::sig("def time_product(device: str, weights: NDArray[numpy.uint8], type: str, columns: "
                  "NDArray[numpy.float32], n_nodes: int) -> list[float]"),
          "The same of ggml's product of weights [rows, bytes] with columns [n, n_cols].");
    m.def("has_own_product", &dgemma::has_own_product, "type"_a,
          "Whether this processor has a kernel of ours for products with weights of a type.");
    m.def("product_kernels", &dgemma::product_kernels,
          "The kernels for such products that this processor can run, the fastest first, which the engine uses.");
    m.def("multiply_rows", &multiply_rows, "weights"_a, "type"_a, "columns"_a, "kernel"_a = "",
          nb::sig("def multiply_rows(weights: NDArray[numpy.uint8], type: str, columns: NDArray[numpy.float32], "
                  "kernel: str = '') -> NDArray[numpy.float32]"),
          "Rows [m, bytes] of weights times columns [n, k] rounded to 8 bits: [n, m], by one of product_kernels(), or "
          "the first. Raises RequestError where there is no kernel.");
    m.def("norm_rows", &norm_rows, "x"_a, "weight"_a, "eps"_a, "n_threads"_a,
          nb::sig("def norm_rows(x: NDArray[numpy.float32], weight: NDArray[numpy.float32], eps: float, "
                  "n_threads: int) -> NDArray[numpy.float32]"),
          "RMS norms of rows [n, k] times a weight [k], as the engine has them on the CPU: [n, k].");
    m.def("multiply_soft", &multiply_soft, "z"_a, "embedding"_a, "type"_a, "n_cols"_a, "dropped_mass"_a, "n_threads"_a,
          nb::sig("def multiply_soft(z: NDArray[numpy.float32], embedding: NDArray[numpy.uint8], type: str, "
                  "n_cols: int, dropped_mass: float, n_threads: int) -> NDArray[numpy.float32]"),
          "softmax(z) [n, rows] times the embedding's rows [rows, bytes] times sqrt(n_cols), as self-conditioning has "
          "it: [n, n_cols].");
    m.def("has_own_attention", &dgemma::has_own_attention,
          "Whether this processor has a kernel of ours for attention over an F16 cache.");
    m.def("attend_rows", &attend_rows, "q"_a, "k"_a, "v"_a, "mask"_a, "n_threads"_a,
          nb::sig("def attend_rows(q: NDArray[numpy.float32], k: NDArray[numpy.float32], v: NDArray[numpy.float32], "
                  "mask: NDArray[numpy.float32], n_threads: int) -> NDArray[numpy.float32]"),
          "softmax(k q + mask) v for queries [n, heads, width] over keys and values [keys, kv_heads, width] as an F16 "
          "cache holds them: [n, heads, width]. Raises RequestError where there is no kernel.");
}
