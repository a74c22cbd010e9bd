// Which device each tensor goes to: a pure function of sizes, free memory and what was asked for. No ggml here.
//
// The cards are numbered 0 … n - 1 in ggml's order, and n is the CPU. What can be moved comes in units: each layer with
// its keys and values, and after the last layer the head with the logits. Cards take contiguous ranges of units.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dgemma/dgemma.h"

namespace dgemma {

/// What a card's driver and kernels need beside what ggml allocates: an allowance, not a measurement.
constexpr uint64_t kCardReserve = 500'000'000;

struct TensorSize {
    std::string name;
    uint64_t bytes;
    size_t unit;     // its layer, or the number of layers: the head
    bool is_expert;  // the weights of a mixture
    bool is_matrix;  // vectors stay with their unit whatever a pattern says: moving them would only add transfers
};

struct PlacementInput {
    std::vector<TensorSize> tensors;
    std::vector<uint64_t> kv;  // by layer
    uint64_t logits;           // beside the head, and what samples them there
    uint64_t compute;          // of the passes, on each card that computes anything
    std::vector<std::string> cards;
    std::vector<uint64_t> free;  // by card
};

struct Placement {
    std::vector<int> units;    // device of each layer's vectors and cache, and of the head
    std::vector<int> tensors;  // in the order of the input
    std::vector<std::string> notes;

    bool uses(int device) const;
    int head() const { return units.back(); }
};

/// With n_gpu_layers -1, as much as fits: first the experts of the first layers make room, one layer after another,
/// since a step reads few of them; where no experts on cards is still too much, whole layers from the first on.
/// RequestError for what cannot be honoured, an n_gpu_layers that does not fit among it.
Placement place(const PlacementInput& input, const DeviceRequest& request);

/// "17.8 GB", rounded up in the last place.
std::string size_text(uint64_t bytes);

}  // namespace dgemma
