#include "profile/part_timer.h"

#include <utility>

#include "graph/parts.h"

namespace dgemma {

bool PartTimer::wants(const ggml_tensor* node) { return ended_part(node) != nullptr; }

void PartTimer::computed(const ggml_tensor* node) { end(ended_part(node)); }

void PartTimer::end(const char* part) {
    const Clock::time_point now = Clock::now();
    seconds_[part] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
}

std::map<std::string, double> PartTimer::take() { return std::exchange(seconds_, {}); }

}  // namespace dgemma
