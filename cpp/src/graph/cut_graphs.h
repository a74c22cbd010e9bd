// A pass as several graphs on one card, cut where kernels that are not ggml's compute a layer's experts.
//
// Each is built and allocated as a graph of its own: ggml counts a node's readers within a graph, which is what its
// fusions ask, and has no public function that cuts one without losing the count. What a graph leaves for later ones
// lies in a fixed place, so that all of them can share the memory of the largest.
#pragma once

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "graph/observer.h"
#include "graph/own_experts.h"
#include "model/devices.h"

namespace dgemma {

struct FreeAllocator {
    void operator()(ggml_gallocr_t allocator) const { ggml_gallocr_free(allocator); }
};

class CutGraphs {
  public:
    /// What is left for later graphs: the residual [hidden, n], the router's logits [experts, n], and rows [hidden, n]
    /// that are in turn the experts' input, their sums and, between parts, a layer's output.
    enum Place { kResidual, kLogits, kRows, kPlaces };

    /// On `card`, or for measuring what they would take on any.
    CutGraphs(ggml_backend_t card, OwnExperts& experts, int64_t hidden, int64_t n_experts);

    /// Begins a pass over n tokens, in place of the last. `by_part`: cut also where a part ends (parts.h).
    void begin(ggml_context* ctx, int64_t n, bool by_part);
    /// The graph that nodes are added to.
    ggml_cgraph* current();
    /// Leaves a node in its place for later graphs; the rest of this one reads the node.
    void leave(ggml_tensor* node, Place place);
    /// Leaves the last node of a part in its place and begins another graph, where that is wanted. Returns what
    /// follows reads.
    ggml_tensor* cut_part(ggml_tensor* node, Place place);
    /// Ends the graph: layer i's experts are computed next, and what follows reads residual and sums (rows) from their
    /// places.
    void cut(size_t layer);
    ggml_tensor* at(Place place) const { return places_[place]; }

    /// BackendError if the card cannot compute a node.
    void check_supported() const;
    /// Takes the memory that the pass needs, whose `inputs` no graph may write over; false if it cannot be had. No
    /// later pass may be larger.
    bool reserve(const std::vector<ggml_tensor*>& inputs);
    /// What reserve() would take.
    uint64_t measure(const std::vector<ggml_tensor*>& inputs);
    /// Gives every tensor its address; false if it cannot.
    bool allocate(const std::vector<ggml_tensor*>& inputs);

    /// Gives the card the whole pass. With an observer it is waited for at the end of each part.
    ggml_status start(NodeObserver* observer);
    void synchronize() const { ggml_backend_synchronize(card_); }

    /// Graphs and the memory for a context that each of them takes at most.
    static size_t most_graphs(size_t n_layers);
    static size_t graph_bytes();

    uint64_t n_bytes() const;

  private:
    struct Piece {
        ggml_cgraph* graph;
        int layer;  // whose experts are computed after it; -1: none
    };

    void end_graph(int layer);
    bool reserve_graphs();
    std::vector<ggml_tensor*> lasting(const std::vector<ggml_tensor*>& inputs) const;
    uint64_t lasting_bytes(const std::vector<ggml_tensor*>& inputs) const;
    void place_lasting(ggml_backend_buffer_t buffer, const std::vector<ggml_tensor*>& inputs) const;

    ggml_backend_t card_;
    OwnExperts& experts_;
    int64_t hidden_, n_experts_;
    std::unique_ptr<ggml_gallocr, FreeAllocator> allocator_;
    BufferPtr buffer_;  // of inputs and places
    ggml_context* context_ = nullptr;
    bool by_part_ = false;
    std::array<ggml_tensor*, kPlaces> places_{};
    std::vector<std::pair<ggml_tensor*, Place>> left_;  // nodes whose address is that of a place
    std::vector<Piece> pieces_;
    ggml_cgraph* current_ = nullptr;
};

}  // namespace dgemma
