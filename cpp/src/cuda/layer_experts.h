// The experts of all layers in our kernels, where one card holds the whole model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "graph/own_experts.h"
#include "model/model.h"

namespace dgemma::cuda {

/// Empty where our kernels can compute every layer's experts in passes of up to `max_tokens` on a device, by its name;
/// otherwise what stands against it.
std::string why_no_layer_experts(const Model& model, const std::string& device, int64_t max_tokens);

/// What they take on the card.
uint64_t layer_experts_bytes(const Model& model, int64_t max_tokens);

/// On the head's card, which holds everything. BackendError where the kernels have no code for it, or memory is short.
std::unique_ptr<OwnExperts> make_layer_experts(const Model& model, const Devices& devices, int64_t max_tokens);

}  // namespace dgemma::cuda
