// Marks the few functions that both the CPU's code and the CUDA kernels call.
#pragma once

#ifdef __CUDACC__
#define DGEMMA_HOST_DEVICE __host__ __device__
#else
#define DGEMMA_HOST_DEVICE
#endif
