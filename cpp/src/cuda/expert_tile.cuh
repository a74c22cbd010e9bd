// A tile of an expert's product: rows of weights times at most 32 rows of values, by one block.
//
// Weights and values are copied to shared memory as they are stored, kDepth columns at a time, the next ones while
// these are multiplied. The eight warps are parts of 32 rows times shares of the columns: a share is some of every
// stage's groups. At the end the shares are summed, in their order.
#pragma once

#include "cuda/expert_stage.cuh"

namespace dgemma::cuda {

/// One float of each accumulator register of each warp, so that no two threads of a warp meet in a bank.
template <typename Product>
using Partials = float[Product::kShares][kRowMmas][kPairMmas][4][kWarps / Product::kShares][kWarp];

template <typename Product>
struct Stages {
    Stage<Product> of[Product::kStages];
    typename Product::RowScales scales[kWarps];
};

template <typename Product>
union TileMemory {
    static_assert(Product::kRows == kWarps / Product::kShares * kWarp, "32 rows to each part");
    Stages<Product> stages;
    Partials<Product> partials;
    float gated[kTilePairs][Product::kRows / 2 + 4];  // every other row eight banks on: a thread writes two of them
};

/// A thread's sums over all shares, of every kShares-th octet of pairs.
template <typename Product>
using WholeSums = float[kPairMmas / Product::kShares][kRowMmas][4];

/// What a thread multiplies of every stage, one stage after the other.
template <typename Product>
class StageProduct {
  public:
    explicit __device__ StageProduct(const TileWork& work) : part_(at_, work.count), left_(work.k) {
        // Rows of the same place in an eight begin at the same place between two vectors: eight rows of an even number
        // of bytes are whole vectors.
        lead_ = at_.g * work.row_bytes;
        lane_lead_ = at_.lane % kRowsOfEight * work.row_bytes;
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

    const ThreadPlace<Product::kShares> at_;
    const typename Product::Part part_;
    // Bytes from the stage's first: row g of the warp's, and the one whose scale the lane works out.
    const int row_ = (at_.part * kWarp + at_.g) * kPitch, lane_row_ = (at_.part * kWarp + at_.lane) * kPitch;
    unsigned lead_, lane_lead_;
    int left_;
};

/// Leaves in `whole` of a warp the sums over all shares of its part's rows and its octets: share, share + kShares, …
template <typename Product, int kOctets>
__device__ void reduce_shares(Partials<Product>& partials, const Accumulators<kOctets>& sums,
                              WholeSums<Product>& whole) {
    constexpr int kShares = Product::kShares;
    const ThreadPlace<kShares> at;
#pragma unroll
    for (int p = 0; p < kOctets; ++p) {
        if (p % kShares == at.share) continue;
#pragma unroll
        for (int i = 0; i < kRowMmas * 4; ++i) {
            partials[at.share][i / 4][p][i % 4][at.part][at.lane] = sums[i / 4][p][i % 4];
        }
    }
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kOctets; ++p) {
        if (p % kShares != at.share) continue;
#pragma unroll
        for (int i = 0; i < kRowMmas * 4; ++i) {
            float sum = 0;
#pragma unroll
            for (int other = 0; other < kShares; ++other) {
                const float its =
                    other == p % kShares ? sums[i / 4][p][i % 4] : partials[other][i / 4][p][i % 4][at.part][at.lane];
                sum = other == 0 ? its : sum + its;
            }
            whole[p / kShares][i / 4][i % 4] = sum * Product::kUnit;
        }
    }
    __syncthreads();  // the memory may be used again
}

/// All of a tile's products of at most 8 kOctets pairs. What a thread has of them then: whole[o][r][i] is of the tile's
/// row 32 part + 16 r + i / 2 * 8 + g and pair 8 (kShares o + share) + 2t + i % 2.
template <int kOctets, typename Product, typename FirstRow, typename RowOf>
__device__ void multiply_octets(const TileWork& work, FirstRow first_row, RowOf row_of, TileMemory<Product>& memory,
                                WholeSums<Product>& whole) {
    constexpr int kDepth = Product::kDepth, kAhead = Product::kStages - 1;
    constexpr unsigned kStageBytes = sizeof(Stage<Product>);
    const auto next = [](unsigned stage) { return stage == kAhead * kStageBytes ? 0 : stage + kStageBytes; };
    StageCopy<Product, kOctets> copy(work, first_row, row_of, memory.stages.of[0]);
    StageProduct<Product> product(work);
    Accumulators<kOctets> sums{};
#pragma unroll
    for (int i = 1; i < kAhead; ++i) copy.start(i * kStageBytes);
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
    reduce_shares<Product, kOctets>(memory.partials, sums, whole);
}

/// The same for any number of pairs: what is not there costs nothing.
template <typename Product, typename FirstRow, typename RowOf>
__device__ void multiply_tile(const TileWork& work, FirstRow first_row, RowOf row_of, TileMemory<Product>& memory,
                              WholeSums<Product>& whole) {
    static_assert(kPairMmas == 4, "a case for each");
    if constexpr (!Product::kByOctets) {
        multiply_octets<kPairMmas>(work, first_row, row_of, memory, whole);
    } else {
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
}

}  // namespace dgemma::cuda
