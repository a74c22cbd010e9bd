// The two passes as graphs: built once for a shape, run as often as the shape repeats.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "graph/layer.h"
#include "graph/mixing_graphs.h"
#include "graph/observer.h"

namespace dgemma {

struct FreeScheduler {
    void operator()(ggml_backend_sched_t sched) const { ggml_backend_sched_free(sched); }
};

/// Runs one kind of pass. Keeps the graph of the last shape and its own compute memory, sized for the largest shape.
class PassRunner {
  public:
    /// `logits`: where the decoder's graph leaves the LM head's product, [vocab, canvas] before the soft-cap, already
    /// in a buffer; null for the encoder. `layers`: who computes them but for the attention, where one card holds
    /// everything; null: ggml.
    PassRunner(Pass pass, const Model& model, const Devices& devices, const KvCache& cache, ggml_tensor* logits,
               OwnLayers* layers, bool exact);

    /// Sizes the compute memory for passes of up to n tokens in a full cache. BackendError if it cannot be had, or if
    /// no device can run a node.
    void reserve(int64_t n_tokens);
    /// What reserve() would allocate, without allocating, on the CPU that holds all weights: for the CPU's graph, or
    /// for the one that a card would get.
    uint64_t measure(int64_t n_tokens, bool as_card);

    /// Makes ready for one pass over n tokens at the cache's n_past; what it reads of them is for the caller to fill.
    TokenInputs prepare(int64_t n_tokens);
    /// Computes the pass that was prepared. Cancelled if the devices' stop function said so.
    void run();
    /// The same, but may return before it is done: whoever reads what it leaves has to wait for the device that left
    /// it.
    void start();

    /// Lets `observer` see the nodes of every later run; null: nobody, which is how it begins and costs nothing.
    void observe(NodeObserver* observer);

    void add_memory(MemoryUse& use) const;

  private:
    static bool show(ggml_tensor* node, bool ask, void* runner);
    void keep_inputs();
    void keep_readers();
    void build(const PassShape& shape, bool as_card = false);
    ggml_tensor* build_decoder_input(const GraphScope& g);
    void build_whole(const GraphScope& g);
    void build_mixings(const GraphScope& g);
    void allocate();
    void synchronize() const;
    void check_supported() const;
    std::string started_names() const;
    void fill_layer_inputs();

    Pass pass_;
    const Model& model_;
    const Devices& devices_;
    const KvCache& cache_;
    ggml_tensor* logits_;
    bool exact_;
    std::unique_ptr<ggml_backend_sched, FreeScheduler> sched_;
    std::unique_ptr<MixingGraphs> mixings_;  // null: one graph, for the scheduler
    Pieces pieces_;
    std::vector<uint8_t> graph_memory_;
    ContextPtr context_;
    ggml_cgraph* graph_ = nullptr;
    PassShape shape_{};
    PassInputs inputs_{};
    bool allocated_ = false;
    NodeObserver* observer_ = nullptr;
    std::exception_ptr observer_error_;
    int64_t masked_past_ = -1;  // n_past that the layers' inputs in the graph's memory were made for
};

}  // namespace dgemma
