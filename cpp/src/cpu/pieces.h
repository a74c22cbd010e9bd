// How the threads of an operation share it out.
#pragma once

#include <atomic>
#include <cstdint>

namespace dgemma {

/// Pieces of one operation after another, each taken by whichever thread is free. With a fixed share for each thread
/// all wait for the slowest: an efficiency core, or one that other work interrupts.
class Pieces {
  public:
    /// Calls visit(0) … visit(n - 1), each once, together with nth - 1 other threads that call this with the same n and
    /// nth. No thread may begin with the next operation before all have returned: ggml has a barrier there.
    template <typename Visit>
    void share(int64_t n, int nth, Visit visit) {
        for (int64_t i = next_++; i < n; i = next_++) visit(i);
        if (++returned_ < nth) return;
        returned_ = 0;
        next_ = 0;
    }

  private:
    alignas(64) std::atomic<int64_t> next_{0};
    alignas(64) std::atomic<int> returned_{0};
};

/// Of how many of n units a piece should be for `nth` threads: small enough to end together, and no smaller.
inline int64_t piece_size(int64_t n, int nth) {
    constexpr int64_t kPieces = 8;  // a thread
    const int64_t size = n / (kPieces * nth);
    return size < 1 ? 1 : size;
}

}  // namespace dgemma
