// Where the time of a pass goes, by part.
#pragma once

#include <chrono>
#include <map>
#include <string>

#include "graph/observer.h"

namespace dgemma {

/// Seconds between the borders of a pass's parts (graph/parts.h), summed by part. Each border costs a synchronisation,
/// so the sum is somewhat more than an unobserved pass takes.
class PartTimer final : public NodeObserver {
  public:
    bool wants(const ggml_tensor* node) override;
    void computed(const ggml_tensor* node) override;
    void part_ended(const char* part) override { end(part); }

    /// The next part begins now.
    void begin() { last_ = Clock::now(); }
    /// `part` ends now, and the next one begins.
    void end(const char* part);

    /// What came in since the last call.
    std::map<std::string, double> take();

  private:
    using Clock = std::chrono::steady_clock;

    Clock::time_point last_ = Clock::now();
    std::map<std::string, double> seconds_;
};

}  // namespace dgemma
