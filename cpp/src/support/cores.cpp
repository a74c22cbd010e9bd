// Where the system does not say which cores a process may use.
#include "support/cores.h"

#include <algorithm>
#include <thread>

namespace dgemma {

int usable_cores() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

}  // namespace dgemma
