#include <sched.h>

#include <algorithm>
#include <thread>

#include "support/cores.h"

namespace dgemma {

int usable_cores() {
    cpu_set_t cores;
    // Fails where the machine has more cores than the set has places, 1024.
    if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace dgemma
