// RMS norm on the CPU. ggml's sums the squares one by one in double precision, which took 4 % of an encode.
#pragma once

#include <ggml.h>

namespace dgemma {

/// x [k, …] F32, every row divided by the root of (the mean of its squares plus eps), times weight [k] F32. `eps` is
/// read when the node is computed.
ggml_tensor* build_cpu_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, const float& eps);

}  // namespace dgemma
