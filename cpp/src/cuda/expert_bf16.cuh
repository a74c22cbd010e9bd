// A tile of an expert's product of BF16 rows: weights become BF16 in registers (bf16_bytes.cuh), once for all pairs,
// and the tensor cores sum.
#pragma once

#include "cuda/expert_bytes.cuh"
#include "cuda/expert_stage.cuh"

namespace dgemma::cuda {

template <typename GroupsOfType>
struct Bf16Product {
    using Groups = GroupsOfType;
    // Twice the rows of 8 bits' and half of the shares: what a block does before and after its columns is as much, and
    // so is what a warp does for every stage but multiply.
    using Bytes = ShareBytes<Groups>;
    static constexpr int kRows = 2 * kWeightRows, kShares = 2, kStages = 2;
    using Place = ThreadPlace<kShares>;
    static constexpr int kDepth = 256, kBytes = Groups::kBytes * (kDepth / Groups::kDepth);
    static constexpr bool kAligned = Groups::kAligned;
    static constexpr int kValueBytes = 2, kValuePitch = kDepth * kValueBytes;
    static constexpr int kGroupBytes = kGroupValues * kValueBytes;
    static constexpr bool kByOctets = true;
    static constexpr float kUnit = kBytesUnit;  // of the sums

    /// Where a byte of a pair's values lies in its row of them: two groups change places in every other row, so that
    /// the two rows of which a quarter of a warp reads a group lie in banks of their own.
    static __device__ int place(int pair, int byte) { return byte ^ pair % 2 * kGroupBytes; }

    struct ValueScales {};

    struct ScaleCopy {
        template <typename RowOf>
        __device__ ScaleCopy(const TileWork& /*work*/, RowOf /*row_of*/, ValueScales& /*first*/, const Place& /*at*/) {}
        __device__ void start(unsigned /*stage*/, int /*left*/) {}
    };

    /// Of a warp's rows, by group: those of rows g, 8 + g, … of the warp, which a thread takes, lie together.
    struct alignas(16) RowScales {
        unsigned of[kShareGroups][kRowsOfEight][kEights];
    };

    /// A thread's part of every stage.
    class Part {
      public:
        __device__ Part(const Place& at, int /*n_pairs*/) : at_(at), values_(at.g * kValuePitch + 16 * at.t) {}

        /// block: of the lane's row.
        __device__ void store_scales(const uint8_t* block, RowScales& scales) const {
            unsigned mine[kShareGroups];
            Bytes::scales(block, at_.share, mine);
#pragma unroll
            for (int i = 0; i < kShareGroups; ++i) {
                scales.of[i][at_.lane % kRowsOfEight][at_.lane / kRowsOfEight] = mine[i];
            }
        }

        /// blocks: of row g, with rows of eights kEightPitch bytes apart; left: columns.
        template <int kEightPitch, int kOctets>
        __device__ void add(const Stage<Bf16Product>& stage, const uint8_t* blocks, const RowScales& scales, int left,
                            Accumulators<kOctets>& sums) const {
#pragma unroll
            for (int two = 0; two < kShareGroups / 2; ++two) {
                if (Bytes::kReadsAgain && two > 0) __syncwarp();  // to the compiler, memory may be another now
                uint2 rows[kEights][2];
#pragma unroll
                for (int r = 0; r < kEights; ++r) {
                    Bytes::words(blocks + r * kEightPitch, at_.share, two, at_.t, rows[r]);
                }
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int group = Bytes::group(at_.share, two, i);
                    if (!kAligned && group * kGroupValues >= left) return;
                    const uint4 scale = *reinterpret_cast<const uint4*>(scales.of[2 * two + i][at_.g]);
                    unsigned a[kRowMmas][2][4];
                    scale_group(rows[0][i], rows[1][i], scale.x, scale.y, a[0]);
                    scale_group(rows[2][i], rows[3][i], scale.z, scale.w, a[1]);
                    multiply(a, &stage.values[0][0] + values_ + place(at_.g, group * kGroupBytes), sums);
                }
            }
        }

      private:
        template <int kOctets>
        static __device__ void multiply(const unsigned (&a)[kRowMmas][2][4], const uint8_t* at,
                                        Accumulators<kOctets>& sums) {
#pragma unroll
            for (int p = 0; p < kOctets; ++p) {
                const uint4 values = *reinterpret_cast<const uint4*>(at + p * kPairsOfMma * kValuePitch);
#pragma unroll
                for (int r = 0; r < kRowMmas; ++r) {
                    multiply_bf16(a[r][0], uint2{values.x, values.y}, sums[r][p]);
                    multiply_bf16(a[r][1], uint2{values.z, values.w}, sums[r][p]);
                }
            }
        }

        const Place at_;
        const int values_;  // bytes from the stage's first value
    };

    static_assert(kEights == 4 && kRowMmas == 2, "a thread's four scales are one vector");
};

}  // namespace dgemma::cuda
