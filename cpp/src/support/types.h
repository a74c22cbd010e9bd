// ggml's types of weights, by name.
#pragma once

#include <ggml.h>

#include <string>

namespace dgemma {

/// "q4_K", "bf16", …, in any case. RequestError for a name that is none, or is no type for weights.
ggml_type weight_type(const std::string& name);

}  // namespace dgemma
