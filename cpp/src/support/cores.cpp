// Where there is no Linux to ask.
#include <algorithm>
#include <thread>

#include "dgemma/dgemma.h"

namespace dgemma {

int usable_cores(const std::string& /*sysfs*/, std::vector<int> processors) {
    if (!processors.empty()) return static_cast<int>(processors.size());
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace dgemma
