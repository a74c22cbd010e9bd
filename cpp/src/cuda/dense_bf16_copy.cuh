// What a block has of a dense product's strips in shared memory, and how it comes there: weights as they are stored
// and tokens' rows of BF16, by asynchronous copies of 16 bytes.
//
// The stages are a ring. A stage has the tokens of a strip, the weights of that strip of the second half of the tile's
// rows, and those of the *next* strip of the first half.
#pragma once

#include "cuda/dense_bf16_weights.cuh"
#include "cuda/dense_tokens.cuh"

namespace dgemma::cuda {

constexpr int kBf16Shares = kStripGroups, kBf16Halves = kWarps / kBf16Shares;
constexpr int kBf16Vector = kVectorBytes / 2;  // values of a vector

/// Where a thread is: lane 4g + t of the warp for this half of the rows and share of the columns.
struct Bf16Place {
    int warp = uniform(static_cast<int>(threadIdx.x) / kWarp), lane = static_cast<int>(threadIdx.x) % kWarp;
    int half = warp / kBf16Shares, share = warp % kBf16Shares, g = lane / 4, t = lane % 4;
    /// Which strip of weights this half unpacks while the tokens of a strip are in shared memory.
    __device__ int strip_of(int strip) const { return half == 0 ? strip + 1 : strip; }
};

/// What a tile of kTileRows rows of weights needs.
template <typename TileGroups, int kTileRows>
struct Bf16Tile {
    using Groups = TileGroups;
    static constexpr int kRows = kTileRows, kHalfRows = kRows / kBf16Halves, kRowMmas = kHalfRows / kRowsOfMma;
    static_assert(kRowMmas * kRowsOfMma * kBf16Halves == kRows, "rows of the tensor cores' product");

    struct Stage {
        // An odd number of vectors to a row: the eight rows that a warp reads at a time lie in banks of their own.
        alignas(16) uint8_t weights[kRows][kVectorBytes * (Strip<Groups>::kVectors | 1)];
        // Groups in the order of turned(): the two tokens that a quarter of a warp reads at a time differ in their
        // banks.
        alignas(16) uint16_t values[kTileTokens][kStripValues];
    };
    /// Of rows kHalfRows half + 16 r + i / 2 * 8 + g and tokens 8 p + 2t + i % 2: [r][p][i].
    using Sums = float[kRowMmas][kTileTokens / kTokensOfMma][4];
    using Scale = typename Bf16Strip<Groups>::Scale;
    using Scales = Scale[kWarps][kHalfRows];
};

/// Rows of a tile that are kCopyRows apart: where the first lies, the bytes from each to the next, how many there are.
struct TileRows {
    const uint8_t* first;
    int step, count;
};

constexpr int kCopyVectors = 8, kCopyRows = kThreads / kBf16Halves / kCopyVectors;

/// What a thread copies of every strip, one strip after the other: of every 16th row of its half of the weights a
/// vector, or every eighth of them, and of every 16th token a vector.
template <typename Tile>
class Bf16Copy {
  public:
    /// rows_at(r): rows r, r + kCopyRows … of the tile, which all have the same lead.
    template <typename RowsAt>
    __device__ Bf16Copy(RowsAt rows_at, const TileTokens& tokens, typename Tile::Stage& first)
        : left_(tokens.k), value_step_(tokens.k * (kTokensAtOnce * 2)) {
        const int row = at_.half * kHalfRows + thread_ % (kThreads / kBf16Halves) / kCopyVectors;
        const TileRows rows = rows_at(row);
        weights_ = rows.first;
        weight_step_ = rows.step;
        n_rows_ = rows.count;
        left_bytes_ = tokens.k / kStripValues * kStripBytes +
                      tokens.k % kStripValues / kGroupValues * (Groups::kBytes / kStripGroups);
        weights_to_ = shared_address(&first.weights[row][0]) + vector_ * kVectorBytes;
        const int token = thread_ / kTokenVectors, group = column_ / kGroupValues, place = column_ % kGroupValues;
        values_ = tokens.rows.values + (static_cast<int64_t>(tokens.first + token) * tokens.k + column_) * 2;
        values_to_ = shared_address(&first.values[token][turned(group, token) * kGroupValues + place]);
        n_tokens_ = tokens.count - token;
    }

    /// Asks for the first strip's weights of the first half; they belong to the next group of copies. `stage`: bytes
    /// from the first stage to the one they are for.
    __device__ void start_first(unsigned stage) {
        if (at_.half == 0) start_weights(0, stage);
    }

    /// Asks for what a stage has of a strip, as far as there is any. Strips follow each other.
    __device__ void start(int strip, unsigned stage) {
        start_weights(at_.strip_of(strip), stage);
        const uint8_t* from = values_;
        const int n = column_ < left_ ? n_tokens_ : 0;
#pragma unroll
        for (int i = 0; i < kTileTokens / kTokensAtOnce; ++i, from += value_step_) {
            if (i * kTokensAtOnce >= n) continue;
            copy_async<kVectorBytes>(values_to_ + stage + i * kTokensAtOnce * kValuePitch, from);
        }
        values_ += kStripValues * 2;
        left_ -= kStripValues;
        __pipeline_commit();
    }

  private:
    using Groups = typename Tile::Groups;
    using S = Strip<Groups>;
    static constexpr int kHalfRows = Tile::kHalfRows;

    __device__ void start_weights(int strip, unsigned stage) {
        const int half = strip & 1, lead = S::kAligned ? 0 : lead_of(weights_);
        const int n_bytes = left_bytes_ < kStripBytes ? left_bytes_ : kStripBytes;
#pragma unroll
        for (int v = 0; v < S::kVectors; v += kCopyVectors) {
            const int vector = vector_ + v;
            const bool is_there =
                n_bytes > 0 && vector < S::kVectors && (S::kIsHalf || vector * kVectorBytes < lead + n_bytes);
            const int n = is_there ? n_rows_ : 0;
            const uint8_t* from = weights_ - lead + S::source(vector, half);
#pragma unroll
            for (int i = 0; i < kHalfRows / kCopyRows; ++i, from += weight_step_) {
                if (i >= n) continue;
                copy_async<kVectorBytes>(weights_to_ + stage + (v * kVectorBytes + i * kCopyRows * kWeightPitch), from);
            }
        }
        weights_ += S::begin(strip + 1) - S::begin(strip);
        left_bytes_ -= kStripBytes;
    }

    static constexpr int kStripBytes = S::kIsHalf ? Groups::kBytes / 2 : Groups::kBytes;  // of a row
    static constexpr int kTokenVectors = kStripValues / kBf16Vector, kTokensAtOnce = kThreads / kTokenVectors;
    static constexpr int kWeightPitch = sizeof(Tile::Stage::weights[0]);
    static constexpr int kValuePitch = sizeof(Tile::Stage::values[0]);

    const Bf16Place at_;
    const int thread_ = static_cast<int>(threadIdx.x), vector_ = thread_ % kCopyVectors;
    const int column_ = thread_ % kTokenVectors * kBf16Vector;
    const uint8_t *weights_, *values_;  // of the next strips
    int left_bytes_, left_;             // of a row, columns of tokens: what is not asked for yet
    int weight_step_, value_step_;      // bytes to the next row
    int n_rows_, n_tokens_;             // from the thread's first on
    SharedAddress weights_to_, values_to_;
};

}  // namespace dgemma::cuda
