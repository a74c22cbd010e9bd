// For processors without a kernel of ours: the soft embedding is computed in F32.
#include "cpu/bf16_product.h"

namespace dgemma {

bool has_bf16_product() { return false; }

void pack_bf16_pairs(const float* /*panel*/, int64_t /*depth*/, int64_t /*n*/, uint32_t* /*pairs*/) {}

void multiply_bf16_pairs(const float* const* /*p*/, int64_t /*rows*/, int64_t /*depth*/, const uint32_t* /*pairs*/,
                         int64_t /*stride*/, float* const* /*acc*/) {}

}  // namespace dgemma
