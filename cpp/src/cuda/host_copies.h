// Arrays of the host's on the card and back, each waited for.
#pragma once

#include <vector>

#include "cuda/card.h"

namespace dgemma::cuda {

template <typename T>
DeviceArray<T> uploaded(const void* from, size_t n) {
    DeviceArray<T> memory(n);
    const cuda::Stream stream;
    stream.copy(memory.data(), from, memory.n_bytes());
    stream.wait();
    return memory;
}

template <typename T>
std::vector<T> downloaded(const T* from, size_t n) {
    std::vector<T> values(n);
    const cuda::Stream stream;
    stream.copy(values.data(), from, n * sizeof(T));
    stream.wait();
    return values;
}

}  // namespace dgemma::cuda
