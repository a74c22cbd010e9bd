// Kernels as nvcc compiles them. emulated/runtime.h is the same for an ordinary C++ compiler; CMake chooses the folder.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <mma.h>

#include "async_copy.h"
#include "bf16_mma.h"
#include "check.h"
#include "cuda/card.h"
#include "int8_mma.h"

namespace dgemma::cuda {

inline dim3 grid(int x, int y) { return {static_cast<unsigned>(x), static_cast<unsigned>(y), 1}; }

constexpr size_t kUnasked = 48 << 10;  // bytes of shared memory that every card gives without being asked

/// Queues one kernel: blocks of `threads` threads, and of n_shared bytes that dynamic_shared() finds.
template <typename... Parameters, typename... Arguments>
void launch_shared(void (*kernel)(Parameters...), dim3 blocks, int threads, size_t n_shared, const Stream& stream,
                   Arguments... arguments) {
    if (n_shared > kUnasked) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(n_shared)),
              "a kernel could not have its shared memory");
    }
    kernel<<<blocks, static_cast<unsigned>(threads), n_shared, static_cast<cudaStream_t>(stream.handle())>>>(
        arguments...);
    check(cudaGetLastError(), "a kernel could not be launched");
}

/// Queues one kernel: blocks of `threads` threads.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, int threads, const Stream& stream, Arguments... arguments) {
    launch_shared(kernel, blocks, threads, 0, stream, arguments...);
}

/// The block's shared memory that its launch asked for.
template <typename T>
__device__ T& dynamic_shared() {
    extern __shared__ __align__(128) unsigned char dynamic_memory[];
    return *reinterpret_cast<T*>(dynamic_memory);
}

/// The same where the launch decides how much.
__device__ inline unsigned char* dynamic_bytes() { return &dynamic_shared<unsigned char>(); }

/// What a block can have of shared memory on the current card.
inline size_t most_shared() {
    int device = 0, n_bytes = 0;
    check(cudaGetDevice(&device), "a card could not be asked for");
    check(cudaDeviceGetAttribute(&n_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "a card did not say how much shared memory it has");
    return static_cast<size_t>(n_bytes);
}

}  // namespace dgemma::cuda
