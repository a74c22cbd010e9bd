// What the threads of one block work out together. Every block of ours has kThreads threads, and all of them must call.
#pragma once

#include "runtime.h"

namespace dgemma::cuda {

constexpr int kThreads = 256, kWarp = 32, kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

/// A value and where it was found.
struct Found {
    float value;
    int index;
};

template <typename T>
__device__ T shuffle_xor(T value, int lanes) {
    return __shfl_xor_sync(kAllLanes, value, lanes);
}

__device__ inline Found shuffle_xor(Found found, int lanes) {
    return {shuffle_xor(found.value, lanes), shuffle_xor(found.index, lanes)};
}

struct Sum {
    template <typename T>
    __device__ T operator()(T a, T b) const {
        return a + b;
    }
};

struct Smaller {
    __device__ int operator()(int a, int b) const { return b < a ? b : a; }
};

/// The greater value; of equals, the first. What is not a number never wins.
struct Greater {
    __device__ Found operator()(Found a, Found b) const {
        return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
    }
};

/// All threads' values combined; the same on every thread and in every run.
template <typename T, typename Combine>
__device__ T block_reduce(T value, Combine combine) {
    __shared__ T warps[kWarps];
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value = combine(value, shuffle_xor(value, lanes));
    if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
    __syncthreads();
    T all = warps[0];
    for (int warp = 1; warp < kWarps; ++warp) all = combine(all, warps[warp]);
    __syncthreads();  // the next call writes to the same place
    return all;
}

template <typename T>
struct Prefix {
    T through;  // the sum of the values of threads 0 … this one
    T total;    // of all threads
};

template <typename T>
__device__ Prefix<T> block_prefix(T value) {
    __shared__ T warps[kWarps];
    const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
    T through = value;
    for (int lanes = 1; lanes < kWarp; lanes *= 2) {
        const T other = __shfl_up_sync(kAllLanes, through, static_cast<unsigned>(lanes));
        if (lane >= lanes) through += other;
    }
    if (lane == kWarp - 1) warps[warp] = through;
    __syncthreads();
    T before = 0, total = 0;
    for (int i = 0; i < kWarps; ++i) {
        if (i == warp) before = total;  // half the additions: those of doubles are slow on most cards
        total += warps[i];
    }
    __syncthreads();  // the next call writes to the same place
    return {before + through, total};
}

}  // namespace dgemma::cuda
