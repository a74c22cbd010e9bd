// The table of contents of dgemma._core: one init function for each file. No algorithm lives here.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <string>
#include <vector>

namespace nb = nanobind;

void init_devices(nb::module_& m);
void init_gguf(nb::module_& m);
void init_quantize(nb::module_& m);
void init_products(nb::module_& m);
void init_sampler(nb::module_& m);
void init_engine(nb::module_& m);
void init_cuda(nb::module_& m);

/// A string of a file or of an error that quotes one: UTF-8 by definition, anything at all where a file is forged.
inline nb::str to_text(const std::string& bytes) {
    return nb::steal<nb::str>(PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace"));
}

template <typename T>
using Array1 = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
template <typename T>
using Array2 = nb::ndarray<nb::numpy, T, nb::ndim<2>>;
template <typename T>
using Array3 = nb::ndarray<nb::numpy, T, nb::ndim<3>>;

/// A fresh numpy array with the values of a vector.
template <typename T, typename From = T>
Array1<T> to_numpy(const std::vector<From>& values) {
    T* data = new T[values.size()];
    std::copy(values.begin(), values.end(), data);
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Array1<T>(data, {values.size()}, owner);
}

/// The same as rows of `columns` values.
template <typename T>
Array2<T> to_numpy2(const std::vector<T>& values, size_t columns) {
    T* data = new T[values.size()];
    std::copy(values.begin(), values.end(), data);
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Array2<T>(data, {values.size() / columns, columns}, owner);
}
