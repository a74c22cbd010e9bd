// Kernels as nvcc compiles them. emulated/runtime.h is the same for an ordinary C++ compiler; CMake chooses the folder.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <mma.h>

#include "async_copy.h"
#include "check.h"
#include "cuda/card.h"
#include "int8_mma.h"

namespace dgemma::cuda {

inline dim3 grid(int x, int y) { return {static_cast<unsigned>(x), static_cast<unsigned>(y), 1}; }

/// Queues one kernel: blocks of `threads` threads.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, int threads, const Stream& stream, Arguments... arguments) {
    kernel<<<blocks, static_cast<unsigned>(threads), 0, static_cast<cudaStream_t>(stream.handle())>>>(arguments...);
    check(cudaGetLastError(), "a kernel could not be launched");
}

}  // namespace dgemma::cuda
