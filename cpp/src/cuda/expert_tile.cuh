// A tile of an expert's product: 64 rows of weights times at most 32 rows of 8-bit values, by one block.
//
// Weights and values are copied to shared memory as they are stored, kDepth columns at a time, the next ones while
// these are multiplied. The eight warps are two halves of 32 rows times four shares of the columns: a share is one
// group of every 128 columns, or two of 256. Each group's integer products become floats in registers; at the end the
// shares are summed, in their order.
#pragma once

#include "cuda/block.cuh"
#include "cuda/expert_weights.cuh"
#include "cuda/experts.h"

namespace dgemma::cuda {

constexpr int kShares = 4, kHalves = kWarps / kShares, kRowsOfMma = 16, kPairsOfMma = 8;
constexpr int kRowMmas = kTileRows8 / kHalves / kRowsOfMma, kPairMmas = kTilePairs / kPairsOfMma;
constexpr int kVectorBytes = 16;  // of an asynchronous copy
static_assert(kPairMmas == kShares, "reduce() gives each share one matrix of pairs");

template <typename Groups>
struct Stage {
    // A row that does not begin at a multiple of 16 bytes is copied from the last one before it, at most 14 bytes away.
    static constexpr int kLead = Groups::kAligned ? 0 : 14;
    static constexpr int kVectors = (kLead + Groups::kBytes + kVectorBytes - 1) / kVectorBytes;
    // An odd number of vectors to a row, and of half rows of banks to a row of values: the eight rows that a warp reads
    // at a time lie in banks of their own.
    alignas(16) uint8_t weights[kTileRows8][kVectorBytes * (kVectors | 1)];
    alignas(16) int8_t q[kTilePairs][Groups::kDepth + kGroupValues];
    alignas(16) GroupScale scales[Groups::kDepth / kGroupValues][kTilePairs];
};

/// One float of each accumulator register of each warp, so that no two threads of a warp meet in a bank.
using Partials = float[kShares][kRowMmas][kPairMmas][4][kHalves][kWarp];

template <typename Groups>
union TileMemory {
    Stage<Groups> stages[2];
    Partials partials;
    float gated[kTilePairs][kTileRows8 / 2 + 1];
};

/// What a block multiplies. Rows are those of the tile; `row` of the weights is a function of the kernel's.
struct TileWork {
    const uint8_t* matrix;  // the expert's
    int64_t row_bytes;
    Int8Rows values;
    const int32_t* rows;  // shared, [count]: the values' rows
    int count, k;
};

using Accumulators = float[kRowMmas][kPairMmas][4];

/// The bytes between the last multiple of 16 and an address.
__device__ inline int lead_of(const uint8_t* at) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(at) % kVectorBytes);
}

template <typename Groups, typename WeightRow>
__device__ void copy_weights(const TileWork& work, WeightRow weight_row, int first, Stage<Groups>& stage) {
    constexpr int kVectors = Stage<Groups>::kVectors;
    const int n_values = work.k - first < Groups::kDepth ? work.k - first : Groups::kDepth;
    const int n_bytes = n_values / kGroupValues * (Groups::kBytes / (Groups::kDepth / kGroupValues));
    const uint8_t* begin = work.matrix + first / Groups::kDepth * Groups::kBytes;
    for (int i = static_cast<int>(threadIdx.x); i < kTileRows8 * kVectors; i += kThreads) {
        const int row = i / kVectors, byte = i % kVectors * kVectorBytes;
        const uint8_t* from = begin + weight_row(row) * work.row_bytes;
        const int lead = Groups::kAligned ? 0 : lead_of(from);
        if (byte < lead + n_bytes) {
            __pipeline_memcpy_async(&stage.weights[row][byte], from - lead + byte, kVectorBytes);
        }
    }
}

template <typename Groups>
__device__ void copy_values(const TileWork& work, int first, Stage<Groups>& stage) {
    constexpr int kVectors = Groups::kDepth / kVectorBytes, kGroups = Groups::kDepth / kGroupValues;
    const int left = work.k - first;
    for (int i = static_cast<int>(threadIdx.x); i < work.count * kVectors; i += kThreads) {
        const int pair = i / kVectors, column = i % kVectors * kVectorBytes;
        if (column < left) {
            const int8_t* from = work.values.q + static_cast<int64_t>(work.rows[pair]) * work.k + first + column;
            __pipeline_memcpy_async(&stage.q[pair][column], from, kVectorBytes);
        }
    }
    for (int i = static_cast<int>(threadIdx.x); i < work.count * kGroups; i += kThreads) {
        const int pair = i / kGroups, group = i % kGroups;
        if (group * kGroupValues < left) {
            const int64_t row = static_cast<int64_t>(work.rows[pair]) * (work.k / kGroupValues);
            __pipeline_memcpy_async(&stage.scales[group][pair], work.values.scales + row + first / kGroupValues + group,
                                    sizeof(GroupScale));
        }
    }
}

/// The sum of products, less the minimum's part, of one group: rows g and g + 8 of the weights, pairs 2t and 2t + 1.
template <bool kHasMinimum>
__device__ void add_group(const GroupPart (&rows)[2], uint2 values, float4 scales, float (&sums)[4]) {
    // Whole numbers below 2^22 in the last bits of a float of this size: they are read without being converted.
    constexpr float kBase = 12582912.0f;
    constexpr int kBaseBits = 0x4b400000;
    int products[4] = {kBaseBits, kBaseBits, kBaseBits, kBaseBits};
    multiply_int8({rows[0].q[0], rows[1].q[0], rows[0].q[1], rows[1].q[1]}, values, products);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const GroupPart& row = rows[i / 2];
        sums[i] += (__int_as_float(products[i]) - kBase) * (row.scale * (i % 2 == 0 ? scales.x : scales.z));
        if (kHasMinimum) sums[i] -= row.minimum * (i % 2 == 0 ? scales.y : scales.w);
    }
}

template <typename Groups, typename WeightRow>
__device__ void multiply_stage(const TileWork& work, WeightRow weight_row, int first, const Stage<Groups>& stage,
                               Accumulators& sums) {
    constexpr int kGroups = Groups::kDepth / kGroupValues / kShares;
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    const int g = lane / 4, t = lane % 4, half = warp / kShares, share = warp % kShares;
    const uint8_t* begin = work.matrix + first / Groups::kDepth * Groups::kBytes;
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
        const int group = share * kGroups + i;
        if (first + group * kGroupValues >= work.k) break;
        GroupPart rows[kRowMmas][2];
#pragma unroll
        for (int r = 0; r < kRowMmas * 2; ++r) {
            const int row = half * (kTileRows8 / kHalves) + r * kPairsOfMma + g;
            const int lead = Groups::kAligned ? 0 : lead_of(begin + weight_row(row) * work.row_bytes);
            rows[r / 2][r % 2] = Groups::load(stage.weights[row] + lead, group, t);
        }
#pragma unroll
        for (int p = 0; p < kPairMmas; ++p) {
            if (p * kPairsOfMma >= work.count) break;
            const int pair = p * kPairsOfMma;
            const uint2 values = *reinterpret_cast<const uint2*>(&stage.q[pair + g][group * kGroupValues + 8 * t]);
            const float4 scales = *reinterpret_cast<const float4*>(&stage.scales[group][pair + 2 * t]);
#pragma unroll
            for (int r = 0; r < kRowMmas; ++r) add_group<Groups::kHasMinimum>(rows[r], values, scales, sums[r][p]);
        }
    }
}

/// Leaves in sums[r][0] of a warp the whole sums of its half's rows and of the pairs 8 share … 8 share + 7.
__device__ inline void reduce_shares(Partials& partials, Accumulators& sums) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    const int half = warp / kShares, share = warp % kShares;
#pragma unroll
    for (int i = 0; i < kRowMmas * kPairMmas * 4; ++i) {
        const int r = i / (kPairMmas * 4), p = i / 4 % kPairMmas;
        partials[share][r][p][i % 4][half][lane] = sums[r][p][i % 4];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kRowMmas * 4; ++i) {
        float sum = 0;
        for (int other = 0; other < kShares; ++other) sum += partials[other][i / 4][share][i % 4][half][lane];
        sums[i / 4][0][i % 4] = sum;
    }
    __syncthreads();  // the memory may be used again
}

/// All of a tile's products; what a thread has of them then: sums[r][0][i] is of row
/// 32 half + 16 r + i / 2 * 8 + g and of pair 8 share + 2t + i % 2.
template <typename Groups, typename WeightRow>
__device__ void multiply_tile(const TileWork& work, WeightRow weight_row, TileMemory<Groups>& memory,
                              Accumulators& sums) {
    const auto copy = [&](int first) {
        Stage<Groups>& stage = memory.stages[first / Groups::kDepth % 2];
        copy_weights<Groups>(work, weight_row, first, stage);
        copy_values<Groups>(work, first, stage);
        __pipeline_commit();
    };
    copy(0);
    for (int first = 0; first < work.k; first += Groups::kDepth) {
        __pipeline_wait_prior(0);
        __syncthreads();  // these columns are there, and the ones before are read
        if (first + Groups::kDepth < work.k) copy(first + Groups::kDepth);
        multiply_stage<Groups>(work, weight_row, first, memory.stages[first / Groups::kDepth % 2], sums);
    }
    __syncthreads();
    reduce_shares(memory.partials, sums);
}

}  // namespace dgemma::cuda
