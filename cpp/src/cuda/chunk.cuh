// How a block reads a chunk of logits.
#pragma once

#include "cuda/block.cuh"
#include "cuda/logit_rows.h"
#include "denoise/vec_math.h"

namespace dgemma::cuda {

constexpr int kPerThread = kChunk / kThreads, kVector = 4;

// The twin of all this is denoise/rows.cpp, down to the same exp and tanh: what differs is the order of sums.

/// The token of this thread's value i. A warp reads 512 contiguous bytes at a time.
__device__ inline int token_of(int chunk, int i) {
    return chunk * kChunk + (i / kVector * kThreads + static_cast<int>(threadIdx.x)) * kVector + i % kVector;
}

__device__ inline float tempered(const LogitRows& rows, float logit) {
    const float capped = rows.soft_cap > 0 ? rows.soft_cap * fast_tanh(logit / rows.soft_cap) : logit;
    return capped / rows.temperature;
}

/// Four logits of a row from `token` on; 0 beyond its end.
__device__ inline float4 load_vector(const LogitRows& rows, const float* row, int token) {
    // Where the vocabulary is a multiple of four, every row begins at a multiple of 16 bytes.
    if (rows.n_vocab % kVector == 0 && token < rows.n_vocab) return *reinterpret_cast<const float4*>(row + token);
    float4 v{0, 0, 0, 0};
    if (token < rows.n_vocab) v.x = row[token];
    if (token + 1 < rows.n_vocab) v.y = row[token + 1];
    if (token + 2 < rows.n_vocab) v.z = row[token + 2];
    if (token + 3 < rows.n_vocab) v.w = row[token + 3];
    return v;
}

/// z of this thread's tokens; -infinity beyond the vocabulary.
__device__ inline void load_chunk(const LogitRows& rows, int row, int chunk, float (&z)[kPerThread]) {
    const float* from = rows.logits + static_cast<int64_t>(row) * rows.n_vocab;
#pragma unroll
    for (int i = 0; i < kPerThread; i += kVector) {  // all loads before the first use
        const float4 v = load_vector(rows, from, token_of(chunk, i));
        z[i] = v.x;
        z[i + 1] = v.y;
        z[i + 2] = v.z;
        z[i + 3] = v.w;
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        z[i] = token_of(chunk, i) < rows.n_vocab ? tempered(rows, z[i]) : -INFINITY;
    }
}

/// The probability of a token, as self-conditioning has it.
__device__ inline float probability(const RowState& row, float z) { return fast_exp(z - row.max) * row.inverse; }

}  // namespace dgemma::cuda
