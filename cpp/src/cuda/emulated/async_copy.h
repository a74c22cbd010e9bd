// Asynchronous copies to shared memory, for tests. Every other one is done at once and the others when their group is
// waited for, so that both writing over what is still read and reading without having waited show.
#pragma once

#include <cstddef>

void __pipeline_commit();
void __pipeline_wait_prior(unsigned n_groups);

namespace dgemma::cuda {

using SharedAddress = char*;

inline SharedAddress shared_address(void* at) { return static_cast<char*>(at); }

/// Error if an address is not a multiple of the size.
void begin_copy(void* to, const void* from, size_t n_bytes);

template <int kBytes>
void copy_async(SharedAddress to, const void* from) {
    begin_copy(to, from, kBytes);
}

}  // namespace dgemma::cuda
