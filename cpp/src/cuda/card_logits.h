// A step's logits that never leave the card.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "session/step_logits.h"

namespace dgemma::cuda {

/// Null where the host has to do this: the head's device is not a card that our kernels were built for, no kernel reads
/// the embedding's type, or the sizes are outside the kernels' bounds. `dropped_mass`: above 0; `max_tokens`: of one
/// pass.
std::unique_ptr<StepLogits> make_card_logits(const Model& model, const Devices& devices, float dropped_mass,
                                             int64_t max_tokens, ThreadPool& pool);

/// What they take on the head's device, the product aside; 0 where make_card_logits() would be null. `is_buffered`: the
/// first layer lies on another device.
uint64_t card_logits_bytes(const Model& model, const std::string& head, int64_t max_tokens, bool is_buffered);

/// Why the host samples although the head's device is a CUDA card, in a sentence; empty where it does not or is none.
std::string why_not_on_card(const Model& model, const std::string& head, int64_t max_tokens);

}  // namespace dgemma::cuda
