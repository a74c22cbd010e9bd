// A pass's layers but for their attention in our kernels, and the LM head, where one card holds the whole model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "graph/own_layers.h"
#include "model/model.h"
#include "session/kv_cache.h"

namespace dgemma::cuda {

/// Empty where our kernels, with a cache in F16, can compute the layers in passes of up to `max_tokens` on a device, by
/// its name; otherwise what stands against it.
std::string why_no_card_layers(const Model& model, const std::string& device, int64_t max_tokens);

/// What they take on a card beside the weights at most.
uint64_t card_layers_bytes(const Model& model, int64_t max_tokens);

/// On the head's card, which holds everything. BackendError where the kernels have no code for it, or memory is short.
std::unique_ptr<OwnLayers> make_card_layers(const Model& model, const Devices& devices, const KvCache& cache,
                                            int64_t max_tokens);

}  // namespace dgemma::cuda
