// A tile of an expert's product: 64 rows of weights times at most 32 rows of 8-bit values, by one block.
//
// Weights and values are copied to shared memory as they are stored, kDepth columns at a time, the next ones while
// these are multiplied. The eight warps are two halves of 32 rows times four shares of the columns: a share is one
// group of every 128 columns, or two of 256. Each group's integer products become floats in registers; at the end the
// shares are summed, in their order.
#pragma once

#include "cuda/experts.h"
#include "cuda/group_product.cuh"

namespace dgemma::cuda {

constexpr int kShares = 4, kHalves = kWarps / kShares, kPairsOfMma = 8;
constexpr int kRowMmas = kWeightRows / kHalves / kRowsOfMma, kPairMmas = kTilePairs / kPairsOfMma;
static_assert(kPairMmas == kShares, "reduce_shares() gives each share one matrix of pairs");
static_assert(kWeightRows / kHalves == kWarp, "a lane for each row of a warp's");

template <typename Groups>
struct Stage {
    static constexpr int kGroups = Groups::kDepth / kGroupValues;
    // A row that does not begin at a multiple of 16 bytes is copied from the last one before it, at most 14 bytes away.
    static constexpr int kLead = Groups::kAligned ? 0 : 14;
    static constexpr int kVectors = (kLead + Groups::kBytes + kVectorBytes - 1) / kVectorBytes;
    // An odd number of vectors to a row, and of half rows of banks to a row of values: the eight rows that a warp reads
    // at a time lie in banks of their own.
    alignas(16) uint8_t weights[kWeightRows][kVectorBytes * (kVectors | 1)];
    alignas(16) int8_t q[kTilePairs][Groups::kDepth + kGroupValues];
    alignas(16) GroupScale scales[kGroups][kTilePairs];
};

/// One float of each accumulator register of each warp, so that no two threads of a warp meet in a bank.
using Partials = float[kShares][kRowMmas][kPairMmas][4][kHalves][kWarp];

/// Of a warp's groups and rows.
template <typename Groups>
using RowScales = RowScale[Stage<Groups>::kGroups / kShares][kWarp];

template <typename Groups>
struct Stages {
    Stage<Groups> of[2];
    RowScales<Groups> scales[kWarps];
};

template <typename Groups>
union TileMemory {
    Stages<Groups> stages;
    Partials partials;
    float gated[kTilePairs][kWeightRows / 2 + 1];
};

/// What a block multiplies.
struct TileWork {
    const uint8_t* matrix;  // the expert's
    int64_t row_bytes;
    ProductRows values;
    int count, k;  // pairs, columns
};

using Accumulators = float[kRowMmas][kPairMmas][4];

/// Where a thread is: lane 4g + t of the warp for this share of the columns and half of the rows.
struct ThreadPlace {
    int warp = uniform(static_cast<int>(threadIdx.x) / kWarp), lane = static_cast<int>(threadIdx.x) % kWarp;
    int half = warp / kShares, share = warp % kShares, g = lane / 4, t = lane % 4;
};

/// What a thread copies of every stage, one stage after the other. The tile's rows are eight times eight neighbours in
/// the matrix: a warp copies one of the eights, and the values of four pairs.
template <typename Groups>
class StageCopy {
  public:
    /// first_row(i): the matrix's row that is the tile's row 8i; row_of(pair): which of the values' rows is the pair's.
    template <typename FirstRow, typename RowOf>
    __device__ StageCopy(const TileWork& work, FirstRow first_row, RowOf row_of, Stage<Groups>& first) : left_(work.k) {
        for (int i = 0; i < kRowSteps; ++i) {
            const uint8_t* row = work.matrix + (first_row(at_.warp) + i * kRowsAtOnce + row_) * work.row_bytes;
            weights_[i] = row + byte_;
        }
        weights_to_ = shared_address(&first.weights[at_.warp * kRowsOfEight + row_][byte_]);
        const int value_pair = at_.warp * kPairsOfWarp + at_.lane / kValueVectors;
        const int column = at_.lane % kValueVectors * kVectorBytes;
        for (int i = 0; i < kValueSteps; ++i) {
            const int pair = value_pair + i * kPairsAtOnce;
            const int64_t row = pair < work.count ? row_of(pair) : 0;
            values_[i] = reinterpret_cast<const int8_t*>(work.values.values) + row * work.k + column;
            first_value_[i] = pair < work.count ? column : work.k;
        }
        values_to_ = shared_address(&first.q[value_pair][column]);
        const int pair = at_.warp * kPairsOfWarp + at_.lane / kGroups % kPairsOfWarp, group = at_.lane % kGroups;
        const bool exists = at_.lane < kPairsOfWarp * kGroups && pair < work.count;
        const int64_t row = exists ? row_of(pair) : 0;
        scales_ = work.values.scales + row * (work.k / kGroupValues) + group;
        first_scaled_ = exists ? group * kGroupValues : work.k;
        scales_to_ = shared_address(&first.scales[group][pair]);
    }

    /// Asks for the next columns, as far as there are any; `stage`: bytes from the first stage to the one they are for.
    __device__ void start(unsigned stage) {
        copy_weights(weights_to_ + stage);
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
            if (first_value_[i] < left_) {
                copy_async<kVectorBytes>(values_to_ + stage + i * kPairsAtOnce * kValuePitch, values_[i]);
            }
            values_[i] += Groups::kDepth;
        }
        if (first_scaled_ < left_) copy_async<sizeof(GroupScale)>(scales_to_ + stage, scales_);
        scales_ += kGroups;
        left_ -= Groups::kDepth;
        __pipeline_commit();
    }

  private:
    static constexpr int kVectors = Stage<Groups>::kVectors, kGroups = Stage<Groups>::kGroups;
    static constexpr int kRowsAtOnce = kWarp / kVectors, kRowSteps = (kRowsOfEight + kRowsAtOnce - 1) / kRowsAtOnce;
    static constexpr int kPairsOfWarp = kTilePairs / kWarps, kValueVectors = Groups::kDepth / kVectorBytes;
    static constexpr int kPairsAtOnce = kWarp / kValueVectors, kValueSteps = kPairsOfWarp / kPairsAtOnce;
    static constexpr int kWeightPitch = sizeof(Stage<Groups>::weights[0]), kValuePitch = sizeof(Stage<Groups>::q[0]);
    static_assert(kPairsOfWarp * kGroups <= kWarp && kPairsAtOnce * kValueSteps == kPairsOfWarp, "lanes for all");

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

    const ThreadPlace at_;
    const int row_ = at_.lane / kVectors, byte_ = at_.lane % kVectors * kVectorBytes;  // of the warp's eight
    const uint8_t* weights_[kRowSteps];
    const int8_t* values_[kValueSteps];
    const GroupScale* scales_;
    SharedAddress weights_to_, values_to_, scales_to_;
    int left_;                                     // columns that are not asked for yet
    int first_value_[kValueSteps], first_scaled_;  // columns of the first stage; past the end where there are none
};

/// What a thread multiplies of every stage, one stage after the other.
template <typename Groups, typename FirstRow>
class StageProduct {
  public:
    __device__ StageProduct(const TileWork& work, FirstRow first_row)
        : first_row_(first_row),
          row_bytes_(work.row_bytes),
          n_pairs_(uniform(work.count)),
          begin_(work.matrix),
          left_(work.k) {}

    __device__ void add(const Stage<Groups>& stage, RowScales<Groups> (&all_scales)[kWarps], Accumulators& sums) {
        RowScales<Groups>& scales = all_scales[at_.warp];
        load_scales(stage, scales);
#pragma unroll
        for (int i = 0; i < kGroups; ++i) {
            const int group = at_.share * kGroups + i;
            if (group * kGroupValues < left_) add_group(stage, group, scales[i], sums);
        }
        begin_ += Groups::kBytes;
        left_ -= Groups::kDepth;
    }

  private:
    static constexpr int kGroups = Stage<Groups>::kGroups / kShares, kEights = kRowMmas * 2;

    /// A row of this stage's weights.
    __device__ const uint8_t* weights(const Stage<Groups>& stage, int eight, int row) const {
        const int lead = Groups::kAligned ? 0 : lead_of(begin_ + (first_row_(eight) + row) * row_bytes_);
        return stage.weights[eight * kRowsOfEight + row] + lead;
    }

    /// Each lane those of one of the warp's rows.
    __device__ void load_scales(const Stage<Groups>& stage, RowScales<Groups>& scales) const {
        const int eight = at_.half * kEights + at_.lane / kRowsOfEight, row = at_.lane % kRowsOfEight;
        RowScale mine[kGroups];
        Groups::scales(weights(stage, eight, row), at_.share, mine);
        for (int i = 0; i < kGroups; ++i) scales[i][at_.lane] = mine[i];
        __syncwarp();
    }

    __device__ void add_group(const Stage<Groups>& stage, int group, const RowScale (&row_scales)[kWarp],
                              Accumulators& sums) const {
        uint2 rows[kEights];
        RowScale scales[kEights];
#pragma unroll
        for (int r = 0; r < kEights; ++r) {
            rows[r] = Groups::words(weights(stage, at_.half * kEights + r, at_.g), group, at_.t);
            scales[r] = row_scales[r * kRowsOfEight + at_.g];
        }
#pragma unroll
        for (int p = 0; p < kPairMmas; ++p) {
            if (p * kPairsOfMma >= n_pairs_) break;
            const int pair = p * kPairsOfMma;
            const int8_t* q = &stage.q[pair + at_.g][group * kGroupValues + 8 * at_.t];
            const uint2 values = *reinterpret_cast<const uint2*>(q);
            const float4 pair_scales = *reinterpret_cast<const float4*>(&stage.scales[group][pair + 2 * at_.t]);
#pragma unroll
            for (int r = 0; r < kRowMmas; ++r) {
                add_product<Groups::kHasMinimum>({rows[2 * r], rows[2 * r + 1]}, {scales[2 * r], scales[2 * r + 1]},
                                                 values, pair_scales, sums[r][p]);
            }
        }
    }

    const ThreadPlace at_;
    const FirstRow first_row_;
    const int64_t row_bytes_;
    const int n_pairs_;
    const uint8_t* begin_;  // of the matrix's first row, this stage's columns
    int left_;
};

/// Leaves in sums[r][0] of a warp the whole sums of its half's rows and of the pairs 8 share … 8 share + 7.
__device__ inline void reduce_shares(Partials& partials, Accumulators& sums) {
    const ThreadPlace at;
#pragma unroll
    for (int i = 0; i < kRowMmas * kPairMmas * 4; ++i) {
        const int r = i / (kPairMmas * 4), p = i / 4 % kPairMmas;
        partials[at.share][r][p][i % 4][at.half][at.lane] = sums[r][p][i % 4];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kRowMmas * 4; ++i) {
        float sum = 0;
        for (int other = 0; other < kShares; ++other) {
            sum += partials[other][i / 4][at.share][i % 4][at.half][at.lane];
        }
        sums[i / 4][0][i % 4] = sum;
    }
    __syncthreads();  // the memory may be used again
}

/// All of a tile's products. What a thread has of them then: sums[r][0][i] is of the tile's row
/// 32 half + 16 r + i / 2 * 8 + g and pair 8 share + 2t + i % 2.
template <typename Groups, typename FirstRow, typename RowOf>
__device__ void multiply_tile(const TileWork& work, FirstRow first_row, RowOf row_of, TileMemory<Groups>& memory,
                              Accumulators& sums) {
    StageCopy<Groups> copy(work, first_row, row_of, memory.stages.of[0]);
    StageProduct<Groups, FirstRow> product(work, first_row);
    copy.start(0);
    unsigned stage = 0;  // its bytes from the first
    for (int first = 0; first < work.k; first += Groups::kDepth, stage ^= sizeof(Stage<Groups>)) {
        __pipeline_wait_prior(0);
        __syncthreads();  // these columns are there, and the ones before are read
        if (first + Groups::kDepth < work.k) copy.start(stage ^ sizeof(Stage<Groups>));
        const char* bytes = reinterpret_cast<const char*>(memory.stages.of) + stage;
        product.add(*reinterpret_cast<const Stage<Groups>*>(bytes), memory.stages.scales, sums);
    }
    __syncthreads();
    reduce_shares(memory.partials, sums);
}

}  // namespace dgemma::cuda
