#include "denoise/stop.h"

#include <numeric>

namespace dgemma {

void StopRule::reset() {
    previous_.clear();
    equal_comparisons_ = 0;
}

bool StopRule::operator()(const std::vector<int32_t>& argmax, const std::vector<float>& entropy) {
    equal_comparisons_ = argmax == previous_ ? equal_comparisons_ + 1 : 0;
    previous_ = argmax;
    const double mean = std::accumulate(entropy.begin(), entropy.end(), 0.0) / static_cast<double>(entropy.size());
    return equal_comparisons_ >= stability_threshold_ && mean < confidence_threshold_;
}

}  // namespace dgemma
