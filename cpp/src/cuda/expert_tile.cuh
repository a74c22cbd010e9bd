// A tile of an expert's product: 64 rows of weights times at most 32 rows of values, by one block.
//
// Weights and values are copied to shared memory as they are stored, kDepth columns at a time, the next ones while
// these are multiplied. The eight warps are two halves of 32 rows times four shares of the columns: a share is one
// group of every 128 columns, or two of 256. At the end the shares are summed, in their order.
#pragma once

#include "cuda/expert_stage.cuh"

namespace dgemma::cuda {

static_assert(kPairMmas == kShares, "reduce_shares() gives each share one matrix of pairs");

/// One float of each accumulator register of each warp, so that no two threads of a warp meet in a bank.
using Partials = float[kShares][kRowMmas][kPairMmas][4][kHalves][kWarp];

/// Of a warp's groups.
template <typename Product>
using ShareScales = typename Product::RowScales[Stage<Product>::kGroups / kShares];

template <typename Product>
struct Stages {
    Stage<Product> of[Product::kStages];
    ShareScales<Product> scales[kWarps];
};

template <typename Product>
union TileMemory {
    Stages<Product> stages;
    Partials partials;
    float gated[kTilePairs][kWeightRows / 2 + 1];
};

/// What a thread multiplies of every stage, one stage after the other.
template <typename Product, typename FirstRow>
class StageProduct {
  public:
    __device__ StageProduct(const TileWork& work, FirstRow first_row)
        : first_row_(first_row),
          row_bytes_(work.row_bytes),
          n_pairs_(uniform(work.count)),
          begin_(work.matrix),
          left_(work.k) {}

    __device__ void add(const Stage<Product>& stage, ShareScales<Product> (&all_scales)[kWarps], Accumulators& sums) {
        ShareScales<Product>& scales = all_scales[at_.warp];
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
    using Groups = typename Product::Groups;
    static constexpr int kGroups = Stage<Product>::kGroups / kShares;

    /// A row of this stage's weights.
    __device__ const uint8_t* weights(const Stage<Product>& stage, int eight, int row) const {
        const int lead = Groups::kAligned ? 0 : lead_of(begin_ + (first_row_(eight) + row) * row_bytes_);
        return stage.weights[eight * kRowsOfEight + row] + lead;
    }

    /// Each lane those of one of the warp's rows.
    __device__ void load_scales(const Stage<Product>& stage, ShareScales<Product>& scales) const {
        const int eight = at_.half * kEights + at_.lane / kRowsOfEight, row = at_.lane % kRowsOfEight;
        RowScale mine[kGroups];
        Groups::scales(weights(stage, eight, row), at_.share, mine);
#pragma unroll
        for (int i = 0; i < kGroups; ++i) Product::store_scale(mine[i], at_.lane, scales[i]);
        __syncwarp();
    }

    __device__ void add_group(const Stage<Product>& stage, int group, const typename Product::RowScales& scales,
                              Accumulators& sums) const {
        uint2 rows[kEights];
#pragma unroll
        for (int r = 0; r < kEights; ++r) {
            rows[r] = Groups::words(weights(stage, at_.half * kEights + r, at_.g), group, at_.t);
        }
        Product::add_group(stage, group, rows, scales, n_pairs_, at_, sums);
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
template <typename Product, typename FirstRow, typename RowOf>
__device__ void multiply_tile(const TileWork& work, FirstRow first_row, RowOf row_of, TileMemory<Product>& memory,
                              Accumulators& sums) {
    constexpr int kDepth = Product::Groups::kDepth, kAhead = Product::kStages - 1;
    constexpr unsigned kStageBytes = sizeof(Stage<Product>);
    const auto next = [](unsigned stage) { return stage == kAhead * kStageBytes ? 0 : stage + kStageBytes; };
    StageCopy<Product> copy(work, first_row, row_of, memory.stages.of[0]);
    StageProduct<Product, FirstRow> product(work, first_row);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) copy.start(i * kStageBytes);
    unsigned here = 0,
             there = kAhead * kStageBytes;  // bytes from the first stage: what is multiplied, what is asked for
    for (int first = 0; first < work.k; first += kDepth) {
        __pipeline_wait_prior(kAhead - 1);
        __syncthreads();  // these columns are there, and the ones before are read
        copy.start(there);
        const char* bytes = reinterpret_cast<const char*>(memory.stages.of) + here;
        product.add(*reinterpret_cast<const Stage<Product>*>(bytes), memory.stages.scales, sums);
        here = next(here);
        there = next(there);
    }
    __syncthreads();
    reduce_shares(memory.partials, sums);
    if constexpr (Product::kUnit != 1) {
#pragma unroll
        for (int i = 0; i < kRowMmas * 4; ++i) sums[i / 4][0][i % 4] *= Product::kUnit;
    }
}

}  // namespace dgemma::cuda
