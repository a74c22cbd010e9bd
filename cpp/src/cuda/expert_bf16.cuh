// A tile of an expert's product of BF16 rows: weights become BF16 in registers (bf16_bytes.cuh), once for all pairs,
// and the tensor cores sum.
#pragma once

#include "cuda/expert_bytes.cuh"
#include "cuda/expert_stage.cuh"

namespace dgemma::cuda {

template <typename GroupsOfType>
struct Bf16Product {
    using Groups = GroupsOfType;
    // A warp takes two groups of every stage: it has less else to do for each.
    static constexpr int kDepth = 256, kBytes = Groups::kBytes * (kDepth / Groups::kDepth);
    static constexpr int kShareGroups = kDepth / kGroupValues / kShares;
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
        __device__ ScaleCopy(const TileWork& /*work*/, RowOf /*row_of*/, ValueScales& /*first*/,
                             const ThreadPlace& /*at*/) {}
        __device__ void start(unsigned /*stage*/, int /*left*/) {}
    };

    /// Of a warp's rows, by group: those of rows g, 8 + g, … of the warp, which a thread takes, lie together.
    struct alignas(16) RowScales {
        unsigned of[kShareGroups][kRowsOfEight][kEights];
    };

    /// A thread's part of every stage.
    class Part {
      public:
        __device__ Part(const ThreadPlace& at, int /*n_pairs*/)
            : at_(at), values_(at.g * kValuePitch + place(at.g, at.share * kShareGroups * kGroupBytes) + 16 * at.t) {}

        /// block: of the lane's row.
        __device__ void store_scales(const uint8_t* block, RowScales& scales) const {
            unsigned mine[kShareGroups];
            ShareBytes<Groups>::scales(block, at_.share, mine);
#pragma unroll
            for (int i = 0; i < kShareGroups; ++i) {
                scales.of[i][at_.lane % kRowsOfEight][at_.lane / kRowsOfEight] = mine[i];
            }
        }

        /// blocks: of row g, with rows of eights kEightPitch bytes apart; left: columns.
        template <int kEightPitch, int kOctets>
        __device__ void add(const Stage<Bf16Product>& stage, const uint8_t* blocks, const RowScales& scales, int left,
                            Accumulators<kOctets>& sums) const {
            uint2 rows[kEights][kShareGroups];
#pragma unroll
            for (int r = 0; r < kEights; ++r) {
                ShareBytes<Groups>::words(blocks + r * kEightPitch, at_.share, at_.t, rows[r]);
            }
#pragma unroll
            for (int i = 0; i < kShareGroups; ++i) {
                if (!kAligned && (at_.share * kShareGroups + i) * kGroupValues >= left) break;
                static_assert(kRowMmas == 2, "a thread's four scales are one vector");
                const uint4 scale = *reinterpret_cast<const uint4*>(scales.of[i][at_.g]);
                unsigned a[kRowMmas][2][4];
                scale_group(rows[0][i], rows[1][i], scale.x, scale.y, a[0]);
                scale_group(rows[2][i], rows[3][i], scale.z, scale.w, a[1]);
                const uint8_t* values = &stage.values[0][0] + (values_ ^ i * kGroupBytes);
                multiply(a, values, sums);
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

        const ThreadPlace at_;
        const int values_;  // bytes from the stage's first, of the share's first group
    };

  private:
    // Three blocks to a multiprocessor of 228 KB, each with another of its own, and scales.
    static constexpr int kStageBytes = kWeightRows * (kBytes + 2 * kVectorBytes) + kTilePairs * kValuePitch;

  public:
    static constexpr int kStages = 3 * kStageBytes <= (73 << 10) ? 3 : 2;
};

}  // namespace dgemma::cuda
