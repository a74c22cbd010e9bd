// A tile of a dense product in BF16: 128 rows of weights times at most 64 tokens' rows, by one block, which has a
// multiprocessor to itself.
//
// The eight warps are two halves of 64 rows times four shares of the columns, one group of every strip each: every
// weight is unpacked once, and what a warp reads of a token serves four products of 16 rows. While one half's warps
// multiply, the other's unpack. At the end the shares are summed, in their order.
#pragma once

#include "cuda/dense_bf16_copy.cuh"
#include "cuda/dense_bf16_weights.cuh"

namespace dgemma::cuda {

constexpr int kMostStages = 4;
constexpr int kBf16RowMmas = kHalfRows / kRowsOfMma, kBf16TokenMmas = kTileTokens / kTokensOfMma;

/// Of rows 64 half + 16 r + i / 2 * 8 + g and tokens 8 p + 2t + i % 2: [r][p][i].
using Bf16Sums = float[kBf16RowMmas][kBf16TokenMmas][4];
using Bf16Scales = Bf16Scale[kWarps][kHalfRows];

/// What a thread unpacks and multiplies of every strip, one strip after the other.
template <typename Groups>
class Bf16Product {
  public:
    /// row_bytes: of the weights; the tile's row r begins as many bytes after a multiple of 16 as r % 8 rows have.
    __device__ Bf16Product(int64_t row_bytes, const TileTokens& tokens, Bf16Scale (&scales)[kHalfRows])
        : scales_(scales),
          lead_(at_.g * static_cast<unsigned>(row_bytes)),
          scale_lead_(at_.lane % kRowsOfEight * static_cast<unsigned>(row_bytes)),
          n_strips_((tokens.k / kGroupValues - at_.share + kStripGroups - 1) / kStripGroups),
          has_many_(uniform(tokens.count) > kTileTokens / 2) {}

    /// What the first half of the rows has to have before its first strip, from the stage with those weights.
    __device__ void begin(const Bf16Stage<Groups>& stage) {
        if (at_.half == 0) unpack(stage, 0);
    }

    /// The products of a strip, which `stage` has. The two warps of a quarter of the multiprocessor, one of each half
    /// of the rows, take turns: while one multiplies, the other unpacks and, in start(), asks for later strips.
    template <typename Start>
    __device__ void add(const Bf16Stage<Groups>& stage, int strip, Bf16Sums& sums, Start start) {
        const bool has_group = strip < n_strips_;
        if (at_.half == 0 && has_group) multiply(stage, sums);
        start();
        unpack(stage, at_.strip_of(strip));
        if (at_.half == 1 && has_group) multiply(stage, sums);
    }

  private:
    using S = Strip<Groups>;

    /// A row of the warp's in strip i.
    __device__ const uint8_t* weights(const Bf16Stage<Groups>& stage, int row, unsigned lead, int i) const {
        const unsigned shift = S::kAligned ? 0 : (lead + static_cast<unsigned>(S::begin(i))) % kVectorBytes;
        return &stage.weights[at_.half * kHalfRows + row][0] + shift;
    }

    /// Each lane those of two rows. The last ones are read: a barrier of the block lies between.
    __device__ void load_scales(const Bf16Stage<Groups>& stage, int i) const {
#pragma unroll
        for (int row = 0; row < kHalfRows; row += kWarp) {
            const uint8_t* strip = weights(stage, row + at_.lane, scale_lead_, i);
            scales_[row + at_.lane] = Bf16Strip<Groups>::scale(strip, at_.share, i & 1);
        }
        __syncwarp();
    }

    /// The warp's group of strip i. Past the last one, of whatever lies there: it is not multiplied.
    __device__ void unpack(const Bf16Stage<Groups>& stage, int i) {
        load_scales(stage, i);
#pragma unroll
        for (int r = 0; r < kBf16RowMmas * 2; ++r) {
            const int row = r * kRowsOfEight + at_.g;
            unsigned pairs[2][2];
            Bf16Strip<Groups>::unpack(S::words(weights(stage, row, lead_, i), at_.share, i & 1, at_.t), scales_[row],
                                      pairs[0], pairs[1]);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                a_[r / 2][j][r % 2] = pairs[j][0];
                a_[r / 2][j][2 + r % 2] = pairs[j][1];
            }
        }
    }

    __device__ void multiply(const Bf16Stage<Groups>& stage, Bf16Sums& sums) const {
        if (has_many_) {
            multiply_tokens<kBf16TokenMmas>(stage, sums);
        } else {
            multiply_tokens<kBf16TokenMmas / 2>(stage, sums);
        }
    }

    template <int kMmas>
    __device__ void multiply_tokens(const Bf16Stage<Groups>& stage, Bf16Sums& sums) const {
        const int place = turned(at_.share, at_.g) * kGroupValues + kBf16Vector * at_.t;
        uint4 values[kMmas];
#pragma unroll
        for (int p = 0; p < kMmas; ++p) {
            values[p] = *reinterpret_cast<const uint4*>(&stage.values[p * kTokensOfMma + at_.g][place]);
        }
#pragma unroll
        for (int p = 0; p < kMmas; p += 2) multiply_two(values[p], values[p + 1], sums, p);
    }

    /// Two products of one sum are eight apart: none waits for the one before.
    __device__ void multiply_two(const uint4& first, const uint4& second, Bf16Sums& sums, int p) const {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
#pragma unroll
            for (int i = 0; i < kBf16RowMmas * 2; ++i) {
                const uint4& values = i % 2 == 0 ? first : second;
                const uint2 half = j == 0 ? uint2{values.x, values.y} : uint2{values.z, values.w};
                multiply_bf16(a_[i / 2][j], half, sums[i / 2][p + i % 2]);
            }
        }
    }

    const Bf16Place at_;
    Bf16Scale (&scales_)[kHalfRows];
    const unsigned lead_, scale_lead_;
    const int n_strips_;  // that have the warp's group
    const bool has_many_;
    unsigned a_[kBf16RowMmas][2][4];  // as multiply_bf16() takes them
};

/// Until all but those of the last strips that are asked for are there.
__device__ inline void wait_for_strip(int n_stages) {
    if (n_stages == 2) {
        __pipeline_wait_prior(0);
    } else if (n_stages == 3) {
        __pipeline_wait_prior(1);
    } else {
        __pipeline_wait_prior(kMostStages - 2);
    }
    __syncthreads();
}

/// All of a tile's products by a share of the columns. n_stages: 2 … kMostStages.
template <typename Groups, typename RowsAt>
__device__ void multiply_bf16_strips(RowsAt rows_at, int64_t row_bytes, const TileTokens& tokens,
                                     Bf16Stage<Groups>* stages, int n_stages, Bf16Scales& scales, Bf16Sums& sums) {
    Bf16Copy<Groups> copy(rows_at, tokens, stages[0]);
    Bf16Product<Groups> product(row_bytes, tokens, scales[Bf16Place().warp]);
    const int n_strips = (tokens.k + kStripValues - 1) / kStripValues;
    const auto at = [](int stage) { return static_cast<unsigned>(stage) * sizeof(Bf16Stage<Groups>); };
    int free = n_stages - 1;  // the stage that was read before
    copy.start_first(at(free));
    for (int i = 0; i < free; ++i) copy.start(i, at(i));
    wait_for_strip(n_stages);
    product.begin(stages[free]);
    for (int i = 0, stage = 0; i < n_strips; ++i) {
        wait_for_strip(n_stages);  // and the free stage is read
        product.add(stages[stage], i, sums, [&] { copy.start(i + n_stages - 1, at(free)); });
        free = stage;
        stage = stage + 1 < n_stages ? stage + 1 : 0;
    }
}

}  // namespace dgemma::cuda
