// A tile of a dense product: 64 rows of weights times at most 64 tokens' rows of 8-bit values, by one block.
//
// Weights and values are copied to shared memory as they are stored, a strip of 128 columns at a time, the next one
// while this one is multiplied. The eight warps are four times 16 rows of weights, and twice 32 tokens: what a warp
// unpacks serves four products of the tensor cores. Sums stay in registers over all of the columns.
#pragma once

#include "cuda/dense_tokens.cuh"
#include "cuda/dense_weights.cuh"

namespace dgemma::cuda {

constexpr int kTileRows = 64;
constexpr int kTokenShares = kWarps / (kTileRows / kRowsOfMma), kTokensOfWarp = kTileTokens / kTokenShares;
constexpr int kTokenMmas = kTokensOfWarp / kTokensOfMma;

template <typename Groups>
struct DenseStage {
    // An odd number of vectors to a row: the eight rows that a warp reads at a time lie in banks of their own.
    alignas(16) uint8_t weights[kTileRows][kVectorBytes * (Strip<Groups>::kVectors | 1)];
    alignas(16) int8_t q[kTileTokens][kStripValues];  // groups in the order of turned()
    alignas(16) GroupScale scales[kStripGroups][kTileTokens];
};

/// Of a warp's rows; as many as put the two groups that a thread writes into banks of their own.
using StripScales = RowScale[kStripGroups][kRowsOfMma + 4];

template <typename Groups>
struct DenseStages {
    DenseStage<Groups> of[2];
    StripScales scales[kWarps];
};

using DenseSums = float[kTokenMmas][4];

/// Where a thread is: lane 4g + t of the warp for this sixteen of the rows and share of the tokens.
struct DensePlace {
    int warp = uniform(static_cast<int>(threadIdx.x) / kWarp), lane = static_cast<int>(threadIdx.x) % kWarp;
    int sixteen = warp / kTokenShares, share = warp % kTokenShares, g = lane / 4, t = lane % 4;
};

/// What a thread copies of every strip, one strip after the other: every fourth vector of a row of the weights and of a
/// token's values, and a scale.
template <typename Groups>
class StripCopy {
  public:
    /// row_at(r): where row r of the tile begins.
    template <typename RowAt>
    __device__ StripCopy(RowAt row_at, const TileTokens& tokens, DenseStage<Groups>& first)
        : weights_(row_at(row_)),
          weights_to_(shared_address(&first.weights[row_][quarter_ * kVectorBytes])),
          left_(tokens.k),
          first_column_(row_ < tokens.count ? 0 : tokens.k) {
        const int column = quarter_ * kVectorBytes, group = column / kGroupValues;
        const int64_t row = tokens.first + (row_ < tokens.count ? row_ : 0);
        values_ = reinterpret_cast<const int8_t*>(tokens.rows.values) + row * tokens.width + column;
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
            const int place = turned(group + i * kAtOnce / kGroupValues, row_) * kGroupValues + column % kGroupValues;
            values_to_[i] = shared_address(&first.q[row_][place]);
        }
        scales_ = tokens.rows.scales + row * (tokens.width / kGroupValues) + quarter_;
        scales_to_ = shared_address(&first.scales[quarter_][row_]);
    }

    /// Asks for strip i, as far as there is one; `stage`: bytes from the first stage to the one it is for. Strips
    /// follow each other.
    __device__ void start(int i, unsigned stage) {
        copy_weights(weights_ + S::begin(i), i % 2, weights_to_ + stage);
#pragma unroll
        for (int v = 0; v < kValueSteps; ++v) {
            if (first_column_ + quarter_ * kVectorBytes + v * kAtOnce < left_) {
                copy_async<kVectorBytes>(values_to_[v] + stage, values_ + v * kAtOnce);
            }
        }
        if (first_column_ + quarter_ * kGroupValues < left_) {
            copy_async<sizeof(GroupScale)>(scales_to_ + stage, scales_);
        }
        values_ += kStripValues;
        scales_ += kStripGroups;
        left_ -= kStripValues;
        __pipeline_commit();
    }

  private:
    using S = Strip<Groups>;
    static constexpr int kQuarters = kThreads / kTileRows, kAtOnce = kQuarters * kVectorBytes;
    static constexpr int kWeightSteps = (S::kVectors + kQuarters - 1) / kQuarters, kValueSteps = kStripValues / kAtOnce;
    static_assert(kTileRows == kTileTokens && kQuarters == kStripGroups, "a row, a token and a scale for each thread");

    /// at: the row's strip, or its block.
    __device__ void copy_weights(const uint8_t* at, int half, SharedAddress to) const {
        const int n_bytes =
            left_ < kStripValues ? left_ / kGroupValues * (Groups::kBytes / kStripGroups) : Groups::kBytes;
        const int lead = S::kAligned ? 0 : lead_of(at);
        at -= lead;
#pragma unroll
        for (int i = 0; i < kWeightSteps; ++i) {
            const int vector = quarter_ + i * kQuarters;
            const bool is_row = (i + 1) * kQuarters <= S::kVectors || vector < S::kVectors;
            if (is_row && (S::kIsHalf || vector * kVectorBytes < lead + n_bytes)) {
                copy_async<kVectorBytes>(to + i * kAtOnce, at + S::source(vector, half));
            }
        }
    }

    const int row_ = static_cast<int>(threadIdx.x) / kQuarters, quarter_ = static_cast<int>(threadIdx.x) % kQuarters;
    const uint8_t* weights_;
    const int8_t* values_;
    const GroupScale* scales_;
    SharedAddress weights_to_, values_to_[kValueSteps], scales_to_;
    int left_;                // columns that are not asked for yet
    const int first_column_;  // of the token's; past the end where there is none
};

/// What a thread multiplies of every strip, one strip after the other.
template <typename Groups>
class StripProduct {
  public:
    /// row_bytes: of the weights. Row r of the tile begins as many bytes after a multiple of 16 as r % 8 rows have; of
    /// rows that are not there, which are others' again, it does not matter what is read.
    __device__ StripProduct(int64_t row_bytes, const TileTokens& tokens)
        : has_tokens_(uniform(tokens.count) > at_.share * kTokensOfWarp),
          lead_(at_.g * static_cast<unsigned>(row_bytes)),
          scale_lead_(at_.lane / 2 % kRowsOfEight * static_cast<unsigned>(row_bytes)),
          left_(tokens.k) {}

    __device__ void add(const DenseStage<Groups>& stage, int i, StripScales (&all_scales)[kWarps], DenseSums& sums) {
        if (!has_tokens_) return;
        StripScales& scales = all_scales[at_.warp];
        const int half = i % 2, pair = at_.lane % 2;
        RowScale mine[2];
        S::scales(weights(stage, at_.lane / 2, scale_lead_, i), pair, half, mine);
        scales[2 * pair][at_.lane / 2] = mine[0];
        scales[2 * pair + 1][at_.lane / 2] = mine[1];
        __syncwarp();
        const uint8_t* rows[2] = {weights(stage, at_.g, lead_, i), weights(stage, at_.g + kRowsOfEight, lead_, i)};
#pragma unroll
        for (int group = 0; group < kStripGroups; ++group) {
            if (!S::kIsHalf && group * kGroupValues >= left_) break;
            add_group(stage, group, {S::words(rows[0], group, half, at_.t), S::words(rows[1], group, half, at_.t)},
                      {scales[group][at_.g], scales[group][at_.g + kRowsOfEight]}, sums);
        }
        left_ -= kStripValues;
    }

  private:
    using S = Strip<Groups>;

    /// A row of the warp's in strip i.
    __device__ const uint8_t* weights(const DenseStage<Groups>& stage, int row, unsigned lead, int i) const {
        const unsigned shift = S::kAligned ? 0 : (lead + static_cast<unsigned>(S::begin(i))) % kVectorBytes;
        return stage.weights[at_.sixteen * kRowsOfMma + row] + shift;
    }

    /// Of tokens that are not there too: without a branch before each, the products overlap.
    __device__ void add_group(const DenseStage<Groups>& stage, int group, const uint2 (&rows)[2],
                              const RowScale (&row_scales)[2], DenseSums& sums) const {
        const int place = turned(group, at_.g) * kGroupValues + 8 * at_.t;
#pragma unroll
        for (int p = 0; p < kTokenMmas; ++p) {
            const int token = at_.share * kTokensOfWarp + p * kTokensOfMma;
            const uint2 values = *reinterpret_cast<const uint2*>(&stage.q[token + at_.g][place]);
            const float4 scales = *reinterpret_cast<const float4*>(&stage.scales[group][token + 2 * at_.t]);
            S::add(rows, row_scales, values, scales, sums[p]);
        }
    }

    const DensePlace at_;
    const bool has_tokens_;
    const unsigned lead_, scale_lead_;
    int left_;
};

/// All of a tile's products: sums[p][i] is of the tile's row 16 sixteen + i / 2 * 8 + g and token
/// 32 share + 8 p + 2t + i % 2. row_at(r): where row r of the tile begins.
template <typename Groups, typename RowAt>
__device__ void multiply_strips(RowAt row_at, int64_t row_bytes, const TileTokens& tokens, DenseStages<Groups>& stages,
                                DenseSums& sums) {
    StripCopy<Groups> copy(row_at, tokens, stages.of[0]);
    StripProduct<Groups> product(row_bytes, tokens);
    const int n_strips = (tokens.k + kStripValues - 1) / kStripValues;
    copy.start(0, 0);
    unsigned stage = 0;  // its bytes from the first
    for (int i = 0; i < n_strips; ++i, stage ^= sizeof(DenseStage<Groups>)) {
        __pipeline_wait_prior(0);
        __syncthreads();  // this strip is there, and the one before is read
        if (i + 1 < n_strips) copy.start(i + 1, stage ^ sizeof(DenseStage<Groups>));
        const char* bytes = reinterpret_cast<const char*>(stages.of) + stage;
        product.add(*reinterpret_cast<const DenseStage<Groups>*>(bytes), i, stages.scales, sums);
    }
}

}  // namespace dgemma::cuda
