// What a call to the CUDA runtime came to.
#pragma once

#include <cuda_runtime_api.h>

namespace dgemma::cuda {

/// BackendError with CUDA's own words where a call failed.
void check(cudaError_t status, const char* what);

}  // namespace dgemma::cuda
