// A pass of which ggml computes only how attention mixes values, on one card: a graph for each layer, and between them
// kernels that are not ggml's (own_layers.h).
//
// Each is built and allocated as a graph of its own: ggml counts a node's readers within a graph, which is what its
// fusions ask, and has no public function that cuts one without losing the count. What passes between a graph and the
// kernels lies in a fixed place, so that all graphs can share the memory of the largest.
#pragma once

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "graph/layer.h"
#include "graph/observer.h"
#include "graph/own_layers.h"
#include "model/devices.h"

namespace dgemma {

struct FreeAllocator {
    void operator()(ggml_gallocr_t allocator) const { ggml_gallocr_free(allocator); }
};

class MixingGraphs {
  public:
    /// On `card`, or for measuring what they would take on any.
    MixingGraphs(ggml_backend_t card, OwnLayers& layers, const Hparams& h);

    /// Begins a pass in place of the last. `layers`: the masks of its inputs are used. `logits`: null in the encoder.
    void begin(ggml_context* ctx, const PassShape& shape, const TokenInputs& tokens, const LayerInputs& layers,
               ggml_tensor* logits);
    /// The next layer's queries, [hd, heads, padded_queries(n)], and its graph of what build_mixing() makes of them.
    /// Those beyond n may be anything: nothing reads what comes of them.
    ggml_tensor* queries();
    void add_graph(ggml_tensor* mixing);

    /// BackendError if the card cannot compute a node.
    void check_supported() const;
    /// Takes the memory that the pass needs; false if it cannot be had. No later pass may be larger.
    bool reserve();
    /// What reserve() would take.
    uint64_t measure();
    /// Gives every tensor its address; false if it cannot.
    bool allocate();

    /// Gives the card the whole pass. With an observer it is waited for at the end of each part.
    ggml_status start(int64_t n_past, NodeObserver* observer);
    void synchronize() const { ggml_backend_synchronize(card_); }

    /// The memory of a context that holds one of them, without its tensors.
    static size_t graph_bytes();

    uint64_t n_bytes() const;

  private:
    enum Place { kQueries, kAttention, kPlaces };

    bool reserve_graphs();
    /// What the graphs and the kernels pass to each other, which no graph may write over.
    std::vector<ggml_tensor*> lasting() const;
    uint64_t lasting_bytes() const;
    void place_lasting(ggml_backend_buffer_t buffer) const;
    OwnPass own_pass(int64_t n_past, NodeObserver* observer) const;

    ggml_backend_t card_;
    OwnLayers& layers_;
    const Hparams& h_;
    std::unique_ptr<ggml_gallocr, FreeAllocator> allocator_;
    BufferPtr buffer_;  // of what lasting() lists
    ggml_context* context_ = nullptr;
    PassShape shape_{};
    TokenInputs tokens_{};
    ggml_tensor *full_mask_ = nullptr, *ring_mask_ = nullptr;
    ggml_tensor* logits_ = nullptr;
    std::array<ggml_tensor*, kPlaces> places_{};
    std::vector<std::pair<ggml_tensor*, Place>> placed_;  // tensors whose address is that of a place
    std::vector<ggml_cgraph*> graphs_;                    // by layer
};

}  // namespace dgemma
