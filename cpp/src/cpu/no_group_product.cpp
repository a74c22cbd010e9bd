// For processors without a kernel of ours: the soft embedding is computed in F32.
#include "cpu/group_product.h"

namespace dgemma {

bool has_group_product() { return false; }

void quantise_tokens(const float* /*rows*/, int64_t /*stride*/, TokenGroup& /*to*/) {}

float quantise_probabilities(const float* /*p*/, int64_t /*count*/, uint8_t* /*q*/) { return 0; }

void multiply_group(const TokenGroup& /*tokens*/, const ProbabilityGroup& /*p*/, const int32_t* /*rows*/, int64_t /*n*/,
                    float* /*sums*/) {}

}  // namespace dgemma
