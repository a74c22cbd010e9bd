// What the lanes of a warp do together, for tests.
#pragma once

#include <cstdint>

namespace dgemma::cuda {

/// In the source. Threads that wait for each other have to do so at the same one.
struct Place {
    const char* file;
    int line;
};

/// As a default argument: where the function is called from.
inline Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }

int lane();

/// Every lane of a warp gives eight bytes and takes those of lane `from`. Error where they do not all come to this
/// place.
uint64_t exchange(uint64_t value, int from, Place place);

}  // namespace dgemma::cuda
