// What Linux says of its processors: https://docs.kernel.org/admin-guide/cputopology.html, and of a container's share
// of them: cpu.max in https://docs.kernel.org/admin-guide/cgroup-v2.html.
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "dgemma/dgemma.h"

namespace dgemma {
namespace {

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

/// "0-3,8": 0, 1, 2, 3 and 8.
std::set<int> numbers(const std::string& list) {
    std::set<int> all;
    std::istringstream ranges(list);
    for (std::string range; std::getline(ranges, range, ',');) {
        std::istringstream ends(range);
        int first = 0, last = 0;
        char dash = 0;
        if (!(ends >> first)) continue;
        if (!(ends >> dash >> last)) last = first;
        for (int i = first; i <= last; ++i) all.insert(i);
    }
    return all;
}

std::vector<int> allowed_processors() {
    std::vector<int> processors;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return processors;  // more than its 1024 places
    for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(i, &set)) processors.push_back(i);
    }
    return processors;
}

/// Without the efficiency cores, where there are others: ggml's operations wait for the slowest thread.
void keep_performance_cores(const std::string& sysfs, std::vector<int>& processors) {
    const std::set<int> performance = numbers(first_line(sysfs + "/devices/cpu_core/cpus"));
    const auto is_performance = [&](int i) { return performance.count(i) > 0; };
    if (std::none_of(processors.begin(), processors.end(), is_performance)) return;
    processors.erase(std::remove_if(processors.begin(), processors.end(), [&](int i) { return !is_performance(i); }),
                     processors.end());
}

/// The two threads of a core share what our kernels are bound by.
size_t count_physical(const std::string& sysfs, const std::vector<int>& processors) {
    std::set<std::string> cores;
    for (const int i : processors) {
        const std::string topology = sysfs + "/devices/system/cpu/cpu" + std::to_string(i) + "/topology/";
        const std::string siblings = first_line(topology + "thread_siblings_list");
        cores.insert(siblings.empty() ? "processor " + std::to_string(i) : siblings);
    }
    return cores.size();
}

/// How many processors' time the control group may use, rounded up; 0 for no limit.
size_t quota(const std::string& sysfs) {
    std::istringstream text(first_line(sysfs + "/fs/cgroup/cpu.max"));
    double microseconds = 0, period = 0;
    if (!(text >> microseconds >> period) || period <= 0) return 0;  // "max 100000"
    return static_cast<size_t>(microseconds / period + 0.999);
}

}  // namespace

int usable_cores(const std::string& sysfs, std::vector<int> processors) {
    if (processors.empty()) processors = allowed_processors();
    keep_performance_cores(sysfs, processors);
    size_t cores = std::max<size_t>(1, count_physical(sysfs, processors));
    if (const size_t limit = quota(sysfs); limit > 0) cores = std::min(cores, std::max<size_t>(1, limit));
    return static_cast<int>(cores);
}

}  // namespace dgemma
