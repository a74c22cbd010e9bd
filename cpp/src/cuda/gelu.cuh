#pragma once

#include "runtime.h"

namespace dgemma::cuda {

/// x sigma(1.59577 (x + 0.044715 x^3)): GELU by its tanh.
__device__ inline float gelu(float x) {
    const float z = 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return x / (1.0f + expf(-z));
}

}  // namespace dgemma::cuda
