// Names for the nodes at which a part of a pass ends, so that an observer can tell the parts apart.
#pragma once

#include <ggml.h>

#include <cstring>

namespace dgemma {

constexpr const char* kPartPrefix = "part.";

/// Marks `node` as the last one of `part`; returns it.
inline ggml_tensor* end_part(ggml_tensor* node, const char* part) {
    return ggml_format_name(node, "%s%s", kPartPrefix, part);
}

/// The part that ends at `node`, or null.
inline const char* ended_part(const ggml_tensor* node) {
    const size_t length = std::strlen(kPartPrefix);
    return std::strncmp(node->name, kPartPrefix, length) == 0 ? node->name + length : nullptr;
}

}  // namespace dgemma
