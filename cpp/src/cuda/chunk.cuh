// How a block reads a chunk of logits.
#pragma once

#include "cuda/block.cuh"
#include "cuda/logit_rows.h"

namespace dgemma::cuda {

constexpr int kPerThread = kChunk / kThreads, kVector = 4;

// The twin of all this is denoise/rows.cpp. What differs: sums go in another order, e^d and tanh are the card's own
// (within a few 1e-7, like the twin's), and the temperature divides differences instead of logits, so that rounding
// stays small.

/// The token of this thread's value i. A warp reads 512 contiguous bytes at a time.
__device__ inline int token_of(int chunk, int i) {
    return chunk * kChunk + (i / kVector * kThreads + static_cast<int>(threadIdx.x)) * kVector + i % kVector;
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

/// x = cap tanh(logit / cap) of this thread's tokens; -infinity beyond the vocabulary.
__device__ inline void load_chunk(const LogitRows& rows, int row, int chunk, float (&x)[kPerThread]) {
    const float* from = rows.logits + static_cast<int64_t>(row) * rows.n_vocab;
#pragma unroll
    for (int i = 0; i < kPerThread; i += kVector) {  // all loads before the first use
        const float4 v = load_vector(rows, from, token_of(chunk, i));
        x[i] = v.x;
        x[i + 1] = v.y;
        x[i + 2] = v.z;
        x[i + 3] = v.w;
    }
    if (rows.soft_cap > 0) {
        const float twice_inverse = 2.0f / rows.soft_cap;
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            const float t = __expf(-fabsf(x[i]) * twice_inverse);
            x[i] = copysignf(rows.soft_cap * __fdividef(1.0f - t, 1.0f + t), x[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        if (token_of(chunk, i) >= rows.n_vocab) x[i] = -INFINITY;
    }
}

/// The exponent of a token beside one of logit `base`.
__device__ inline float exponent(const LogitRows& rows, float x, float base) {
    return (x - base) * rows.inverse_temperature;
}

/// The probability of a token, as self-conditioning has it.
__device__ inline float probability(const LogitRows& rows, const RowState& row, float x) {
    return __expf(exponent(rows, x, row.max)) * row.inverse;
}

}  // namespace dgemma::cuda
