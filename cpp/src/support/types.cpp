#include "support/types.h"

#include <cctype>

#include "dgemma/dgemma.h"

namespace dgemma {
namespace {

std::string lower(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

/// Q8_1 and Q8_K are ggml's own types for activations; integers and F64 are no weights.
bool holds_weights(ggml_type type) {
    if (type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16) return true;
    return ggml_is_quantized(type) && type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K;
}

}  // namespace

ggml_type weight_type(const std::string& name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (ggml_blck_size(type) > 0 && lower(ggml_type_name(type)) == lower(name) && holds_weights(type)) return type;
    }
    throw RequestError("ggml " + ggml_found_version() + " has no type " + name + " for weights");
}

}  // namespace dgemma
