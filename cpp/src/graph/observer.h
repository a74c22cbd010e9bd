// Looking on while a pass is computed, node by node.
#pragma once

#include <ggml.h>

namespace dgemma {

/// Given to PassRunner::observe; called on the engine's thread. What it throws ends the pass and comes out of run().
class NodeObserver {
  public:
    virtual ~NodeObserver() = default;
    /// Whether to call computed() for this node. The scheduler computes in one go what lies between two such nodes, so
    /// each yes costs a device's synchronisation.
    virtual bool wants(const ggml_tensor* node) = 0;
    /// The node is computed, and its sources still hold what it was computed from (on their device).
    virtual void computed(const ggml_tensor* node) = 0;
    /// A part of a pass (parts.h) that is not ggml's is computed.
    virtual void part_ended(const char* /*part*/) {}
};

}  // namespace dgemma
