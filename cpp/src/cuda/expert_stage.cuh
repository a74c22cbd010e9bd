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
    alignas(16) uint8_t weights[kWeightRows][kPitch];
    alignas(16) uint8_t values[kTilePairs][Product::kValuePitch];
};

/// Where a thread is: lane 4g + t of the warp for this share of the columns and half of the rows.
struct ThreadPlace {
    int warp = uniform(static_cast<int>(threadIdx.x) / kWarp), lane = static_cast<int>(threadIdx.x) % kWarp;
    int half = warp / kShares, share = warp % kShares, g = lane / 4, t = lane % 4;
};

/// What a thread copies of every stage, one stage after the other. The tile's rows are eight times eight neighbours in
/// the matrix: a warp copies one of the eights, and the values of four pairs.
/// kOctets: of pairs, as far as there are any.
template <typename Product, int kOctets>
class StageCopy {
  public:
    /// first_row(i): the matrix's row that is the tile's row 8i; row_of(pair): which of the values' rows is the pair's.
    template <typename FirstRow, typename RowOf>
    __device__ StageCopy(const TileWork& work, FirstRow first_row, RowOf row_of, Stage<Product>& first)
        : n_pairs_(work.count), left_(work.k), scales_(work, row_of, first, at_) {
        const uint8_t* rows = work.matrix + first_row(at_.warp) * work.row_bytes;
#pragma unroll
        for (int i = 0; i < kRowSteps; ++i) {
            const int vector = i * kWarp + at_.lane, row = vector / kPitchVectors;
            const int byte = vector % kPitchVectors * kVectorBytes;
            const uint8_t* begin = rows + static_cast<unsigned>(row) * static_cast<unsigned>(work.row_bytes);
            leads_[i] = Product::kAligned ? 0 : lead_of(begin);
            weights_[i] = begin - leads_[i] + byte;
            const bool exists = row < kRowsOfEight && byte < kVectors * kVectorBytes;
            ends_[i] = exists ? leads_[i] + static_cast<int>(work.row_bytes) - byte : 0;
        }
        weights_to_ = shared_address(&first.weights[at_.warp * kRowsOfEight][0]) + at_.lane * kVectorBytes;
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
            const int pair = pair_ + i * kStepPairs;
            const int64_t row = pair < n_pairs_ ? row_of(pair) : 0;
            values_[i] = work.values.values + row * work.k * Product::kValueBytes + value_byte_;
        }
        values_to_ = shared_address(&first.values[pair_][Product::place(pair_, value_byte_)]);
    }

    /// Asks for the next columns, as far as there are any; `stage`: bytes from the first stage to the one they are for.
    __device__ void start(unsigned stage) {
        if (left_ > 0) {
            copy_weights(weights_to_ + stage);
            copy_values(values_to_ + stage);
            scales_.start(stage, left_);
        }
        left_ -= Product::kDepth;
        ++n_stages_;
        __pipeline_commit();
    }

  private:
    static constexpr int kVectors = Stage<Product>::kVectors, kPitchVectors = Stage<Product>::kPitch / kVectorBytes;
    static constexpr int kRowSteps = (kRowsOfEight * kPitchVectors + kWarp - 1) / kWarp;
    static constexpr bool kMoves = Product::kBytes % kVectorBytes != 0;  // where rows begin between two vectors
    static constexpr int kDepthBytes = Product::kDepth * Product::kValueBytes;
    static constexpr int kValueVectors = kDepthBytes / kVectorBytes, kPairsAtOnce = kWarp / kValueVectors;
    static constexpr int kStepPairs = kWarps * kPairsAtOnce, kMostSteps = kTilePairs / kStepPairs;
    static constexpr int kValueSteps = (kOctets * kPairsOfMma + kStepPairs - 1) / kStepPairs;
    static_assert(kStepPairs % 2 == 0 && kStepPairs * kMostSteps == kTilePairs, "lanes for all, and place() as before");

    /// As far as the rows go: a vector that two stages share is copied for both.
    __device__ void copy_weights(SharedAddress to) {
        const int done = static_cast<int>(n_stages_) * Product::kBytes;  // bytes of a row
#pragma unroll
        for (int i = 0; i < kRowSteps; ++i) {
            const int from = kMoves ? (leads_[i] + done) & -kVectorBytes : done;
            if (from < ends_[i]) {
                copy_async<kVectorBytes>(to + i * kWarp * kVectorBytes,
                                         kMoves ? weights_[i] + from : address_at<Product::kBytes>(weights_[i], n_stages_));
            }
        }
    }

    __device__ void copy_values(SharedAddress to) {
        const bool has_column = Product::kAligned || value_byte_ < left_ * Product::kValueBytes;
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
            if (has_column && pair_ + i * kStepPairs < n_pairs_) {
                copy_async<kVectorBytes>(to + i * kStepPairs * Product::kValuePitch,
                                         address_at<kDepthBytes>(values_[i], n_stages_));
            }
        }
    }

    const ThreadPlace at_;
    const int pair_ = at_.warp * kPairsAtOnce + at_.lane / kValueVectors;
    const int value_byte_ = at_.lane % kValueVectors * kVectorBytes;
    // Of the first stage; for weights as if it began at the last multiple of 16 bytes.
    const uint8_t *weights_[kRowSteps], *values_[kValueSteps];
    SharedAddress weights_to_, values_to_;
    int leads_[kRowSteps], ends_[kRowSteps];  // bytes from there: to the row, to its end
    const int n_pairs_;
    unsigned n_stages_ = 0;  // that are asked for
    int left_;               // columns that are not
    typename Product::ScaleCopy scales_;
};

}  // namespace dgemma::cuda
