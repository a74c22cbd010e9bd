// Asynchronous copies to shared memory by its own, 32-bit addresses: CUDA C++'s __pipeline_memcpy_async works those out
// anew for every copy.
#pragma once

#include <cstdint>

namespace dgemma::cuda {

using SharedAddress = uint32_t;

__device__ inline SharedAddress shared_address(const void* at) {
    return static_cast<SharedAddress>(__cvta_generic_to_shared(at));
}

/// Begins one; both addresses are multiples of its size. __pipeline_commit() and __pipeline_wait_prior() close a group
/// and wait for it.
template <int kBytes>
__device__ inline void copy_async(SharedAddress to, const void* from) {
    static_assert(kBytes == 8 || kBytes == 16, "a copy past the first cache, or a small one");
    if constexpr (kBytes == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
    }
}

}  // namespace dgemma::cuda
