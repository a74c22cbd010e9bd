// When a canvas is done (generation_diffusion_gemma.py, StableAndConfidentStoppingCriteria).
#pragma once

#include <cstdint>
#include <vector>

namespace dgemma {

class StopRule {
  public:
    StopRule(int stability_threshold, double confidence_threshold)
        : stability_threshold_(stability_threshold), confidence_threshold_(confidence_threshold) {}

    /// Forgets the history: a new canvas.
    void reset();

    /// True when the argmax has been the same for `stability_threshold` consecutive comparisons and the mean entropy
    /// (nats) is below the confidence threshold. Threshold 0: always stable; the first step is stable for no other.
    bool operator()(const std::vector<int32_t>& argmax, const std::vector<float>& entropy);

  private:
    int stability_threshold_;
    double confidence_threshold_;
    std::vector<int32_t> previous_;
    int equal_comparisons_ = 0;
};

}  // namespace dgemma
