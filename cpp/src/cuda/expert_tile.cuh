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

template <typename Product>
struct Stages {
    Stage<Product> of[Product::kStages];
    typename Product::RowScales scales[kWarps];
};

template <typename Product>
union TileMemory {
    Stages<Product> stages;
    Partials partials;
    float gated[kTilePairs][kWeightRows / 2 + 1];
};

/// What a thread multiplies of every stage, one stage after the other.
template <typename Product>
class StageProduct {
  public:
    explicit __device__ StageProduct(const TileWork& work) : part_(at_, work.count), left_(work.k) {
        // Rows of the same place in an eight begin at the same place between two vectors: eight rows of an even number
        // of bytes are whole vectors.
        const auto row_bytes = static_cast<unsigned>(work.row_bytes);
        lead_ = at_.g * row_bytes;
        lane_lead_ = at_.lane % kRowsOfEight * row_bytes;
    }

    template <int kOctets>
    __device__ void add(const Stage<Product>& stage, typename Product::RowScales (&all_scales)[kWarps],
                        Accumulators<kOctets>& sums) {
        typename Product::RowScales& scales = all_scales[at_.warp];
        part_.store_scales(begin(stage, lane_row_, lane_lead_), scales);
        __syncwarp();
        part_.template add<kRowsOfEight * kPitch>(stage, begin(stage, row_, lead_), scales, left_, sums);
        left_ -= Product::kDepth;
        if (Product::kBytes % kVectorBytes != 0) {
            lead_ += Product::kBytes;
            lane_lead_ += Product::kBytes;
        }
    }

  private:
    static constexpr int kPitch = sizeof(Stage<Product>::weights[0]);

    static __device__ const uint8_t* begin(const Stage<Product>& stage, int row, unsigned lead) {
        return &stage.weights[0][0] + row + (Product::kAligned ? 0 : lead % kVectorBytes);
    }

    const ThreadPlace at_;
    const typename Product::Part part_;
    // Bytes from the stage's first: row g of the warp's, and the one whose scale the lane works out.
    const int row_ = (at_.half * kWarp + at_.g) * kPitch, lane_row_ = (at_.half * kWarp + at_.lane) * kPitch;
    unsigned lead_, lane_lead_;
    int left_;
};

/// Leaves in `whole` of a warp the sums over all shares of its half's rows and of the pairs 8 share … 8 share + 7, if
/// there are any.
template <int kOctets>
__device__ void reduce_shares(Partials& partials, const Accumulators<kOctets>& sums, float (&whole)[kRowMmas][4]) {
    const ThreadPlace at;
#pragma unroll
    for (int i = 0; i < kRowMmas * kOctets * 4; ++i) {
        const int r = i / (kOctets * 4), p = i / 4 % kOctets;
        partials[at.share][r][p][i % 4][at.half][at.lane] = sums[r][p][i % 4];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kRowMmas * 4; ++i) {
        if (at.share >= kOctets) break;
        float sum = 0;
#pragma unroll
        for (int other = 0; other < kShares; ++other) {
            sum += partials[other][i / 4][at.share][i % 4][at.half][at.lane];
        }
        whole[i / 4][i % 4] = sum;
    }
    __syncthreads();  // the memory may be used again
}

/// All of a tile's products of at most 8 kOctets pairs. What a thread has of them then: sums[r][i] is of the tile's row
/// 32 half + 16 r + i / 2 * 8 + g and pair 8 share + 2t + i % 2.
template <int kOctets, typename Product, typename FirstRow, typename RowOf>
__device__ void multiply_octets(const TileWork& work, FirstRow first_row, RowOf row_of, TileMemory<Product>& memory,
                                float (&whole)[kRowMmas][4]) {
    constexpr int kDepth = Product::kDepth, kAhead = Product::kStages - 1;
    constexpr unsigned kStageBytes = sizeof(Stage<Product>);
    const auto next = [](unsigned stage) { return stage == kAhead * kStageBytes ? 0 : stage + kStageBytes; };
    StageCopy<Product, kOctets> copy(work, first_row, row_of, memory.stages.of[0]);
    StageProduct<Product> product(work);
    Accumulators<kOctets> sums{};
#pragma unroll
    for (int i = 0; i < kAhead; ++i) copy.start(i * kStageBytes);
    unsigned here = 0, there = kAhead * kStageBytes;  // bytes from the first stage: of what is multiplied and asked for
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
    reduce_shares(memory.partials, sums, whole);
    if constexpr (Product::kUnit != 1) {
#pragma unroll
        for (int i = 0; i < kRowMmas * 4; ++i) whole[i / 4][i % 4] *= Product::kUnit;
    }
}

/// The same for any number of pairs: what is not there costs nothing.
template <typename Product, typename FirstRow, typename RowOf>
__device__ void multiply_tile(const TileWork& work, FirstRow first_row, RowOf row_of, TileMemory<Product>& memory,
                              float (&whole)[kRowMmas][4]) {
    static_assert(kPairMmas == 4, "a case for each");
    if constexpr (!Product::kByOctets) return multiply_octets<kPairMmas>(work, first_row, row_of, memory, whole);
    switch ((work.count + kPairsOfMma - 1) / kPairsOfMma) {
        case 1:
            return multiply_octets<1>(work, first_row, row_of, memory, whole);
        case 2:
            return multiply_octets<2>(work, first_row, row_of, memory, whole);
        case 3:
            return multiply_octets<3>(work, first_row, row_of, memory, whole);
        default:
            return multiply_octets<4>(work, first_row, row_of, memory, whole);
    }
}

}  // namespace dgemma::cuda
