// What a block has of a dense product's strips in shared memory, and how it comes there: weights as they are stored
// and tokens' rows of BF16, by asynchronous copies of 16 bytes.
//
// The stages are a ring. A stage has the tokens of a strip, the weights of that strip of the second half of the tile's
// rows, and those of the *next* strip of the first half.
#pragma once

#include "cuda/dense_tokens.cuh"
#include "cuda/dense_weights.cuh"

namespace dgemma::cuda {

constexpr int kBf16Shares = kStripGroups, kBf16Halves = kWarps / kBf16Shares, kHalfRows = kBf16TileRows / kBf16Halves;
constexpr int kBf16Vector = kVectorBytes / 2;  // values of a vector

/// Where a thread is: lane 4g + t of the warp for this half of the rows and share of the columns.
struct Bf16Place {
    int warp = uniform(static_cast<int>(threadIdx.x) / kWarp), lane = static_cast<int>(threadIdx.x) % kWarp;
    int half = warp / kBf16Shares, share = warp % kBf16Shares, g = lane / 4, t = lane % 4;
    /// Which strip of weights this half unpacks while the tokens of a strip are in shared memory.
    __device__ int strip_of(int strip) const { return half == 0 ? strip + 1 : strip; }
};

template <typename Groups>
struct Bf16Stage {
    // An odd number of vectors to a row: the eight rows that a warp reads at a time lie in banks of their own.
    alignas(16) uint8_t weights[kBf16TileRows][kVectorBytes * (Strip<Groups>::kVectors | 1)];
    // Groups in the order of turned(): the two tokens that a quarter of a warp reads at a time differ in their banks.
    alignas(16) uint16_t values[kTileTokens][kStripValues];
};

/// Rows of a tile that are kCopyRows apart: where the first lies, the bytes from each to the next, how many there are.
struct TileRows {
    const uint8_t* first;
    int step, count;
};

constexpr int kCopyVectors = 8, kCopyRows = kThreads / kBf16Halves / kCopyVectors;

/// What a thread copies of every strip, one strip after the other: of every 16th row of its half of the weights a
/// vector, or every eighth of them, and of every 16th token a vector.
template <typename Groups>
class Bf16Copy {
  public:
    /// rows_at(r): rows r, r + kCopyRows … of the tile, which all have the same lead.
    template <typename RowsAt>
    __device__ Bf16Copy(RowsAt rows_at, const TileTokens& tokens, Bf16Stage<Groups>& first)
        : left_(tokens.k), value_step_(tokens.k * kTokensAtOnce) {
        const int row = at_.half * kHalfRows + thread_ % (kThreads / kBf16Halves) / kCopyVectors;
        rows_ = rows_at(row);
        weights_to_ = shared_address(&first.weights[row][0]) + vector_ * kVectorBytes;
        const int token = thread_ / kTokenVectors, group = column_ / kGroupValues, place = column_ % kGroupValues;
        values_ = reinterpret_cast<const uint16_t*>(tokens.rows.values) +
                  static_cast<int64_t>(tokens.first + token) * tokens.k + column_;
        values_to_ = shared_address(&first.values[token][turned(group, token) * kGroupValues + place]);
        tokens_ = tokens.count - token;
    }

    /// Asks for the first strip's weights of the first half; they belong to the next group of copies. `stage`: bytes
    /// from the first stage to the one they are for.
    __device__ void start_first(unsigned stage) const {
        if (at_.half == 0) start_weights(0, left_, stage);
    }

    /// Asks for what a stage has of a strip, as far as there is any. Strips follow each other.
    __device__ void start(int strip, unsigned stage) {
        start_weights(at_.strip_of(strip), at_.half == 0 ? left_ - kStripValues : left_, stage);
#pragma unroll
        for (int i = 0; i < kTileTokens / kTokensAtOnce; ++i) {
            if (column_ >= left_ || i * kTokensAtOnce >= tokens_) continue;
            copy_async<kVectorBytes>(values_to_ + stage + i * kTokensAtOnce * kValuePitch,
                                     values_ + static_cast<int64_t>(i * value_step_));
        }
        values_ += kStripValues;
        left_ -= kStripValues;
        __pipeline_commit();
    }

  private:
    using S = Strip<Groups>;

    /// left: columns from the strip's first on.
    __device__ void start_weights(int strip, int left, unsigned stage) const {
        if (left <= 0) return;
        const uint8_t* at = rows_.first + S::begin(strip);
        const int lead = S::kAligned ? 0 : lead_of(at);
        const int n_bytes =
            left < kStripValues ? left / kGroupValues * (Groups::kBytes / kStripGroups) : Groups::kBytes;
#pragma unroll
        for (int v = 0; v < S::kVectors; v += kCopyVectors) {
            const int vector = vector_ + v;
            const bool is_there = vector < S::kVectors && (S::kIsHalf || vector * kVectorBytes < lead + n_bytes);
            const uint8_t* from = at - lead + S::source(vector, strip & 1);
#pragma unroll
            for (int i = 0; i < kHalfRows / kCopyRows; ++i) {
                if (!is_there || i >= rows_.count) continue;
                copy_async<kVectorBytes>(weights_to_ + stage + (v * kVectorBytes + i * kCopyRows * kWeightPitch),
                                         from + static_cast<int64_t>(i * rows_.step));
            }
        }
    }

    static constexpr int kTokenVectors = kStripValues / kBf16Vector, kTokensAtOnce = kThreads / kTokenVectors;
    static constexpr int kWeightPitch = sizeof(Bf16Stage<Groups>::weights[0]);
    static constexpr int kValuePitch = sizeof(Bf16Stage<Groups>::values[0]);

    const Bf16Place at_;
    const int thread_ = static_cast<int>(threadIdx.x), vector_ = thread_ % kCopyVectors;
    const int column_ = thread_ % kTokenVectors * kBf16Vector;
    int left_;  // columns of tokens that are not asked for yet
    const int value_step_;
    TileRows rows_;
    const uint16_t* values_;
    int tokens_;  // from the thread's first on
    SharedAddress weights_to_, values_to_;
};

}  // namespace dgemma::cuda
