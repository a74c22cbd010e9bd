// What a tile of an expert's product has in shared memory, and how it comes there.
//
// Product says what is multiplied: Int8Product of expert_int8.cuh or Bf16Product of expert_bf16.cuh.
#pragma once

#include "cuda/experts.h"
#include "cuda/group_product.cuh"

namespace dgemma::cuda {

constexpr int kShares = 4, kHalves = kWarps / kShares, kPairsOfMma = 8;
constexpr int kRowMmas = kWeightRows / kHalves / kRowsOfMma, kPairMmas = kTilePairs / kPairsOfMma;
constexpr int kEights = kRowMmas * 2;  // of a warp's rows
static_assert(kWeightRows / kHalves == kWarp, "a lane for each row of a warp's");

/// What a block multiplies.
struct TileWork {
    const uint8_t* matrix;  // the expert's
    int64_t row_bytes;
    ProductRows values;
    int count, k;  // pairs, columns
};

/// Of a thread of a warp: rows, pairs, and four of the tensor cores' product.
using Accumulators = float[kRowMmas][kPairMmas][4];

/// kDepth columns of all of a tile's rows and pairs.
template <typename Product>
struct Stage : Product::ValueScales {
    using Groups = typename Product::Groups;
    static constexpr int kGroups = Groups::kDepth / kGroupValues;
    // A row that does not begin at a multiple of 16 bytes is copied from the last one before it, at most 14 bytes away.
    static constexpr int kLead = Groups::kAligned ? 0 : 14;
    static constexpr int kVectors = (kLead + Groups::kBytes + kVectorBytes - 1) / kVectorBytes;
    // An odd number of vectors to a row: the eight rows that a warp reads at a time lie in banks of their own.
    alignas(16) uint8_t weights[kWeightRows][kVectorBytes * (kVectors | 1)];
    alignas(16) uint8_t values[kTilePairs][Product::kValuePitch];
};

/// Where a thread is: lane 4g + t of the warp for this share of the columns and half of the rows.
struct ThreadPlace {
    int warp = uniform(static_cast<int>(threadIdx.x) / kWarp), lane = static_cast<int>(threadIdx.x) % kWarp;
    int half = warp / kShares, share = warp % kShares, g = lane / 4, t = lane % 4;
};

/// What a thread copies of every stage, one stage after the other. The tile's rows are eight times eight neighbours in
/// the matrix: a warp copies one of the eights, and the values of four pairs.
template <typename Product>
class StageCopy {
  public:
    /// first_row(i): the matrix's row that is the tile's row 8i; row_of(pair): which of the values' rows is the pair's.
    template <typename FirstRow, typename RowOf>
    __device__ StageCopy(const TileWork& work, FirstRow first_row, RowOf row_of, Stage<Product>& first)
        : left_(work.k), n_pairs_(uniform(work.count)), scales_(work, row_of, first, at_) {
        for (int i = 0; i < kRowSteps; ++i) {
            const uint8_t* row = work.matrix + (first_row(at_.warp) + i * kRowsAtOnce + row_) * work.row_bytes;
            weights_[i] = row + byte_;
        }
        weights_to_ = shared_address(&first.weights[at_.warp * kRowsOfEight + row_][byte_]);
        const int value_pair = at_.warp * kPairsAtOnce + at_.lane / kValueVectors;
        const int byte = at_.lane % kValueVectors * kVectorBytes;
        for (int i = 0; i < kValueSteps; ++i) {
            const int pair = value_pair + i * kStepPairs;
            const int64_t row = pair < work.count ? row_of(pair) : 0;
            values_[i] = work.values.values + row * work.k * Product::kValueBytes + byte;
            first_value_[i] = pair < work.count ? byte / Product::kValueBytes : work.k;
        }
        values_to_ = shared_address(&first.values[value_pair][Product::place(value_pair, byte)]);
    }

    /// Asks for the next columns, as far as there are any; `stage`: bytes from the first stage to the one they are for.
    __device__ void start(unsigned stage) {
        if (left_ > 0) {
            copy_weights(weights_to_ + stage);
            copy_values(values_to_ + stage);
            scales_.start(stage, left_);
            left_ -= Groups::kDepth;
        }
        __pipeline_commit();
    }

  private:
    using Groups = typename Product::Groups;
    static constexpr int kVectors = Stage<Product>::kVectors, kGroups = Stage<Product>::kGroups;
    static constexpr int kRowsAtOnce = kWarp / kVectors, kRowSteps = (kRowsOfEight + kRowsAtOnce - 1) / kRowsAtOnce;
    static constexpr int kDepthBytes = Groups::kDepth * Product::kValueBytes,
                         kValueVectors = kDepthBytes / kVectorBytes;
    static constexpr int kPairsAtOnce = kWarp / kValueVectors, kStepPairs = kWarps * kPairsAtOnce;
    static constexpr int kValueSteps = kTilePairs / kStepPairs;
    static constexpr int kWeightPitch = sizeof(Stage<Product>::weights[0]);
    static_assert(kStepPairs % 2 == 0 && kStepPairs * kValueSteps == kTilePairs,
                  "lanes for all, and place() as before");

    __device__ void copy_weights(SharedAddress to) {
        const int n_bytes = left_ < Groups::kDepth ? left_ / kGroupValues * (Groups::kBytes / kGroups) : Groups::kBytes;
#pragma unroll
        for (int i = 0; i < kRowSteps; ++i) {
            const int lead = Groups::kAligned ? 0 : lead_of(weights_[i]);
            const bool has_row = row_ < kRowsAtOnce && row_ < kRowsOfEight - i * kRowsAtOnce;
            if (has_row && (Groups::kAligned || byte_ < lead + n_bytes)) {
                copy_async<kVectorBytes>(to + i * kRowsAtOnce * kWeightPitch, weights_[i] - lead);
            }
            weights_[i] += Groups::kBytes;
        }
    }

    __device__ void copy_values(SharedAddress to) {
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
            if (first_value_[i] < left_) {
                copy_async<kVectorBytes>(to + i * kStepPairs * Product::kValuePitch, values_[i]);
            }
            values_[i] += kDepthBytes;
        }
    }

    const ThreadPlace at_;
    const int row_ = at_.lane / kVectors, byte_ = at_.lane % kVectors * kVectorBytes;  // of the warp's eight
    const uint8_t *weights_[kRowSteps], *values_[kValueSteps];
    SharedAddress weights_to_, values_to_;
    int left_;  // columns that are not asked for yet
    const int n_pairs_;
    int first_value_[kValueSteps];  // columns of the first stage; past the end where there are none
    typename Product::ScaleCopy scales_;
};

}  // namespace dgemma::cuda
