// What an importance matrix is made of: the squared inputs of every product with a weight, summed by column.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "dgemma/dgemma.h"
#include "graph/observer.h"

namespace dgemma {

/// Sees all products of a graph in which each weight is multiplied by a node of its own (GraphScope::exact). The sums
/// are in double and in the order of the rows, so they depend on the rows alone.
class InputCollector final : public NodeObserver {
  public:
    bool wants(const ggml_tensor* node) override;
    void computed(const ggml_tensor* node) override;

    /// What came in since the last call, by the weight's name.
    std::vector<InputSums> take();

  private:
    InputSums& sums_for(const ggml_tensor* weight);
    void add_rows(const ggml_tensor* input, InputSums& to);
    void add_routed_rows(const ggml_tensor* input, const ggml_tensor* experts, InputSums& to);

    std::map<std::string, InputSums> sums_;
    std::vector<uint8_t> input_memory_, experts_memory_;  // copies, where a tensor is not in the host's memory
};

}  // namespace dgemma
