// A tile of an expert's product of BF16 rows: weights become BF16 in registers (bf16_bytes.cuh), once for all pairs,
// and the tensor cores sum.
#pragma once

#include "cuda/bf16_bytes.cuh"
#include "cuda/expert_stage.cuh"

namespace dgemma::cuda {

template <typename GroupsOfType>
struct Bf16Product {
    using Groups = GroupsOfType;
    static constexpr int kValueBytes = 2, kValuePitch = Groups::kDepth * kValueBytes;
    static constexpr int kGroupBytes = kGroupValues * kValueBytes;
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

    /// Of a group of a warp's rows: those of rows g, 8 + g, … of the warp, which a thread takes, lie together.
    struct alignas(16) RowScales {
        unsigned of[kRowsOfEight][kEights];
    };

    static __device__ void store_scale(const RowScale& scale, int lane, RowScales& scales) {
        scales.of[lane % kRowsOfEight][lane / kRowsOfEight] = bytes_scale<Groups::kHasMinimum>(scale);
    }

    static __device__ void add_group(const Stage<Bf16Product>& stage, int group, const uint2 (&rows)[kEights],
                                     const RowScales& row_scales, int n_pairs, const ThreadPlace& at,
                                     Accumulators& sums) {
        static_assert(kRowMmas == 2, "a thread's four scales are one vector");
        const uint4 scales = *reinterpret_cast<const uint4*>(row_scales.of[at.g]);
        unsigned a[kRowMmas][2][4];
        scale_group(bytes(rows[0]), bytes(rows[1]), scales.x, scales.y, a[0]);
        scale_group(bytes(rows[2]), bytes(rows[3]), scales.z, scales.w, a[1]);
#pragma unroll
        for (int p = 0; p < kPairMmas; ++p) {
            const int pair = p * kPairsOfMma;
            if (pair >= n_pairs) break;
            const uint8_t* at_values = &stage.values[pair + at.g][place(at.g, group * kGroupBytes) + 16 * at.t];
            const uint4 values = *reinterpret_cast<const uint4*>(at_values);
#pragma unroll
            for (int r = 0; r < kRowMmas; ++r) {
                multiply_bf16(a[r][0], uint2{values.x, values.y}, sums[r][p]);
                multiply_bf16(a[r][1], uint2{values.z, values.w}, sums[r][p]);
            }
        }
    }

  private:
    /// Signed bytes plus 128.
    static __device__ uint2 bytes(const uint2& words) {
        constexpr unsigned kTurned = Groups::kHasMinimum ? 0 : 0x80808080u;
        return {words.x ^ kTurned, words.y ^ kTurned};
    }

    // Three blocks to a multiprocessor of 228 KB, each with another of its own, and scales.
    static constexpr int kStageBytes = kWeightRows * (Groups::kBytes + 2 * kVectorBytes) + kTilePairs * kValuePitch;

  public:
    static constexpr int kStages = 3 * kStageBytes <= (73 << 10) ? 3 : 2;
};

}  // namespace dgemma::cuda
