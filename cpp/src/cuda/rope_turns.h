// By which angles the values of a head are rotated, computed on the host: as many numbers as there are positions in a
// pass, once for all layers of a kind, and without a card's slow reduction of large angles.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/heads.h"

namespace dgemma::cuda {

/// How the heads of one kind of layer are rotated.
struct Rope {
    int64_t head_dim = 0;  // 0: there is no such layer
    float base = 0;
    std::vector<float> factors;  // the frequencies are divided by, [head_dim / 2]; empty: by 1
};

/// [n, head_dim / 2]: of positions first … first + n - 1 and each pair i, the angle
/// position * base^(-2 i / head_dim) / factors[i], in F32 as the reference has it (modeling_gemma4.py).
std::vector<Turn> rope_turns(const Rope& rope, int64_t first, int64_t n);

/// The same on the card, for the pass that is queued next.
class CardTurns {
  public:
    CardTurns(Rope rope, int64_t most_tokens);
    static uint64_t n_bytes(int64_t head_dim, int64_t most_tokens);

    /// Waits for the queue where the positions are not those of the last call.
    void prepare(int64_t first, int64_t n, const Stream& stream);
    const Turn* data() const { return turns_.data(); }

  private:
    Rope rope_;
    DeviceArray<Turn> turns_;
    int64_t first_ = -1, n_ = 0;
};

}  // namespace dgemma::cuda
