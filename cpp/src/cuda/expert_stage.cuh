// What a tile of an expert's product has in shared memory, and how it comes there.
//
// Product says what is multiplied: Int8Product of expert_int8.cuh or Bf16Product of expert_bf16.cuh.
#pragma once

#include "cuda/experts.h"
#include "cuda/group_product.cuh"

namespace dgemma::cuda {

constexpr int kPairsOfMma = 8, kPairMmas = kTilePairs / kPairsOfMma;
constexpr int kEights = kWarp / kRowsOfEight, kRowMmas = kWarp / kRowsOfMma;  // of a warp's 32 rows

/// What a block multiplies.
struct TileWork {
    const uint8_t* matrix;  // the expert's
    unsigned row_bytes, matrix_bytes;
    ProductRows values;
    int eights, count, k;  // of rows, pairs, columns: those that there are
};

/// Of a thread of a warp: rows, octets of pairs, and four of the tensor cores' product.
template <int kOctets>
using Accumulators = float[kRowMmas][kOctets][4];

/// kDepth columns of all of a tile's rows and pairs.
template <typename Product>
struct Stage : Product::ValueScales {
    // A row that does not begin at a multiple of 16 bytes is copied from the last one before it, at most 14 bytes away.
    static constexpr int kLead = Product::kAligned ? 0 : 14;
    static constexpr int kVectors = (kLead + Product::kBytes + kVectorBytes - 1) / kVectorBytes;
    // An odd number of vectors to a row: the eight rows that a warp reads at a time lie in banks of their own.
    static constexpr int kPitch = kVectorBytes * (kVectors | 1);
    alignas(16) uint8_t weights[Product::kRows][kPitch];
    alignas(16) uint8_t values[kTilePairs][Product::kValuePitch];
};

/// Where a thread is: lane 4g + t of the warp for this share of the columns and part of the rows.
template <int kShares>
struct ThreadPlace {
    int warp = uniform(static_cast<int>(threadIdx.x / kWarp)), lane = static_cast<int>(threadIdx.x % kWarp);
    int part = warp / kShares, share = warp % kShares, g = lane / 4, t = lane % 4;
};

/// What a thread copies of every stage, one stage after the other. The tile's rows are eights of neighbours in the
/// matrix: each warp copies as many of those, and the values of four pairs.
/// kOctets: of pairs, as far as there are any.
template <typename Product, int kOctets>
class StageCopy {
  public:
    /// first_row(i): the matrix's row that is the tile's row 8i; row_of(pair): which of the values' rows is the pair's.
    /// Asks for the first stage, its weights first: which values belong to them is only now read.
    template <typename FirstRow, typename RowOf>
    __device__ StageCopy(const TileWork& work, FirstRow first_row, RowOf row_of, Stage<Product>& first)
        : weights_(work.matrix),
          matrix_bytes_(work.matrix_bytes),
          values_(work.values.values),
          left_(work.k),
          scales_(work, row_of, first, at_) {
        const unsigned row_bytes = work.row_bytes;
        const int eight = at_.warp * kWarpEights, rows = first_row(eight);
        const int more_rows = kWarpEights == 2 ? first_row(eight + 1) - kRowsOfEight : rows;  // from the ninth on
        // Of the warp's vectors, those that lie in no row among them, the lane's first and every 32nd from there on.
        unsigned row = at_.lane / kPitchVectors, vector = at_.lane % kPitchVectors;
#pragma unroll
        for (int i = 0; i < kRowSteps; ++i) {
            const unsigned begin = ((row < kRowsOfEight ? rows : more_rows) + row) * row_bytes;
            leads_[i] = Product::kAligned ? 0 : begin % kVectorBytes;
            weight_bytes_[i] = begin - leads_[i] + vector * kVectorBytes;
            const bool is_row = (i + 1) * kWarp <= kWarpRows * kPitchVectors || row < kWarpRows;
            const bool is_vector = kVectors == kPitchVectors || vector < kVectors;
            const bool exists = is_row && is_vector && eight < work.eights;
            if constexpr (kMoves) {
                moving_[i] = work.matrix + weight_bytes_[i];
                ends_[i] = exists ? static_cast<int>(leads_[i] + row_bytes - vector * kVectorBytes) : 0;
            }
            if (!exists) weight_bytes_[i] = kNothing;
            vector += kWarp % kPitchVectors;
            const bool is_next = vector >= kPitchVectors;
            vector -= is_next ? kPitchVectors : 0;
            row += kWarp / kPitchVectors + (is_next ? 1 : 0);
        }
        weights_to_ = shared_address(&first.weights[at_.warp * kWarpRows][0]) + at_.lane * kVectorBytes;
        copy_weights(weights_to_);
        const unsigned row_vectors = work.k * Product::kValueBytes / kVectorBytes;
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
            const int pair = pair_ + i * kStepPairs;
            value_vectors_[i] = kNothing;
            if (pair < work.count) value_vectors_[i] = row_of(pair) * row_vectors + value_byte_ / kVectorBytes;
        }
        values_to_ = shared_address(&first.values[pair_][Product::place(pair_, value_byte_)]);
        copy_values(values_to_);
        finish(0);
    }

    /// Asks for the next columns, as far as there are any; `stage`: bytes from the first stage to the one they are for.
    __device__ void start(unsigned stage) {
        if (left_ > 0) {
            copy_weights(weights_to_ + stage);
            copy_values(values_to_ + stage);
        }
        finish(stage);
    }

  private:
    static constexpr int kVectors = Stage<Product>::kVectors, kPitchVectors = Stage<Product>::kPitch / kVectorBytes;
    static constexpr int kWarpRows = Product::kRows / kWarps, kWarpEights = kWarpRows / kRowsOfEight;
    static constexpr int kRowSteps = (kWarpRows * kPitchVectors + kWarp - 1) / kWarp;
    static constexpr unsigned kNothing = ~0u;
    static constexpr bool kMoves = Product::kBytes % kVectorBytes != 0;  // where rows begin between two vectors
    static constexpr int kDepthBytes = Product::kDepth * Product::kValueBytes;
    static constexpr int kValueVectors = kDepthBytes / kVectorBytes, kPairsAtOnce = kWarp / kValueVectors;
    static constexpr int kStepPairs = kWarps * kPairsAtOnce, kMostSteps = kTilePairs / kStepPairs;
    static constexpr int kValueSteps = (kOctets * kPairsOfMma + kStepPairs - 1) / kStepPairs;
    static_assert(kStepPairs % 2 == 0 && kStepPairs * kMostSteps == kTilePairs, "lanes for all, and place() as before");

    __device__ void finish(unsigned stage) {
        scales_.start(stage, left_);
        done_ += Product::kBytes;
        left_ -= Product::kDepth;
        __pipeline_commit();
    }

    /// Rows that move as far as they go, others to the end of the stage if that lies in the matrix: what follows a row
    /// is the next one, which is read in any case. A vector that two stages share is copied for both.
    __device__ void copy_weights(SharedAddress to) {
        const unsigned limit = matrix_bytes_ - done_;
#pragma unroll
        for (int i = 0; i < kRowSteps; ++i) {
            const SharedAddress step_to = to + i * kWarp * kVectorBytes;
            if constexpr (kMoves) {
                const int from = static_cast<int>(leads_[i] + done_) & -kVectorBytes;
                if (from < ends_[i]) copy_async<kVectorBytes>(step_to, moving_[i] + from);
            } else if (weight_bytes_[i] < limit) {
                copy_async<kVectorBytes>(step_to, weights_ + weight_bytes_[i]);
            }
        }
        weights_ += Product::kBytes;
    }

    __device__ void copy_values(SharedAddress to) {
        const bool has_column = Product::kAligned || value_byte_ < left_ * Product::kValueBytes;
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
            if (!has_column || value_vectors_[i] == kNothing) continue;
            copy_async<kVectorBytes>(to + i * kStepPairs * Product::kValuePitch,
                                     values_ + static_cast<uint64_t>(value_vectors_[i]) * kVectorBytes);
        }
        values_ += kDepthBytes;
    }

    const ThreadPlace<Product::kShares> at_;
    const int pair_ = at_.warp * kPairsAtOnce + at_.lane / kValueVectors;
    const int value_byte_ = at_.lane % kValueVectors * kVectorBytes;
    const uint8_t *weights_, *values_;  // of this stage's columns
    SharedAddress weights_to_, values_to_;
    // Of the first stage, from there; a row that begins between two vectors counts from the one before it, lead bytes.
    unsigned weight_bytes_[kRowSteps], value_vectors_[kValueSteps], leads_[kRowSteps];
    const uint8_t* moving_[kRowSteps];  // where rows move: there
    int ends_[kRowSteps];               // and bytes from there to the row's end
    const unsigned matrix_bytes_;
    int done_ = 0, left_;  // bytes of a row that are asked for, columns that are not
    typename Product::ScaleCopy scales_;
};

}  // namespace dgemma::cuda
