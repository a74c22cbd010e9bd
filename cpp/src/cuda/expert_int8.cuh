// A tile of an expert's product of 8-bit rows: each group's whole numbers become floats in registers.
#pragma once

#include "cuda/expert_stage.cuh"

namespace dgemma::cuda {

template <typename GroupsOfType>
struct Int8Product {
    using Groups = GroupsOfType;
    static constexpr int kRows = kWeightRows, kShares = 4;
    using Place = ThreadPlace<kShares>;
    static constexpr int kDepth = Groups::kDepth, kBytes = Groups::kBytes, kGroups = kDepth / kGroupValues;
    static constexpr bool kAligned = Groups::kAligned;
    // An odd number of half rows of banks to a row of values: the eight rows that a warp reads at a time lie in banks
    // of their own.
    static constexpr int kValueBytes = 1, kValuePitch = kDepth + kGroupValues, kStages = 2;
    static constexpr bool kByOctets = false;  // a loop for each number of octets would have too many registers
    static constexpr float kUnit = 1;         // of the sums

    /// Where a byte of a pair's values lies in its row of them.
    static __device__ int place(int /*pair*/, int byte) { return byte; }

    struct ValueScales {
        alignas(16) GroupScale scales[kGroups][kTilePairs];
    };

    /// A lane for each group of the pairs of a warp.
    class ScaleCopy {
      public:
        template <typename RowOf>
        __device__ ScaleCopy(const TileWork& work, RowOf row_of, ValueScales& first, const Place& at) {
            const int pair = at.warp * kPairsOfWarp + at.lane / kGroups % kPairsOfWarp, group = at.lane % kGroups;
            const bool exists = at.lane < kPairsOfWarp * kGroups && pair < work.count;
            const int64_t row = exists ? row_of(pair) : 0;
            scales_ = work.values.scales + row * (work.k / kGroupValues) + group;
            first_ = exists ? group * kGroupValues : work.k;
            to_ = shared_address(&first.scales[group][pair]);
        }

        __device__ void start(unsigned stage, int left) {
            if (first_ < left) copy_async<sizeof(GroupScale)>(to_ + stage, scales_);
            scales_ += kGroups;
        }

      private:
        static constexpr int kPairsOfWarp = kTilePairs / kWarps;
        static_assert(kPairsOfWarp * kGroups <= kWarp, "lanes for all");
        const GroupScale* scales_;
        SharedAddress to_;
        int first_;  // column of the first stage; past the end where there is none
    };

    /// Of a warp's rows, by group.
    using RowScales = RowScale[kGroups / kShares][kWarp];

    /// A thread's part of every stage.
    class Part {
      public:
        __device__ Part(const Place& at, int n_pairs) : at_(at), n_pairs_(uniform(n_pairs)) {}

        /// block: of the lane's row.
        __device__ void store_scales(const uint8_t* block, RowScales& scales) const {
            RowScale mine[kShareGroups];
            Groups::scales(block, at_.share, mine);
            for (int i = 0; i < kShareGroups; ++i) scales[i][at_.lane] = mine[i];
        }

        /// blocks: of row g, with rows of eights kEightPitch bytes apart; left: columns.
        template <int kEightPitch, int kOctets>
        __device__ void add(const Stage<Int8Product>& stage, const uint8_t* blocks, const RowScales& scales, int left,
                            Accumulators<kOctets>& sums) const {
#pragma unroll
            for (int i = 0; i < kShareGroups; ++i) {
                const int group = at_.share * kShareGroups + i;
                if (!Groups::kAligned && group * kGroupValues >= left) break;
                uint2 rows[kEights];
#pragma unroll
                for (int r = 0; r < kEights; ++r) rows[r] = Groups::words(blocks + r * kEightPitch, group, at_.t);
                add_group(stage, group, rows, scales[i], sums);
            }
        }

      private:
        static constexpr int kShareGroups = kGroups / kShares;

        template <int kOctets>
        __device__ void add_group(const Stage<Int8Product>& stage, int group, const uint2 (&rows)[kEights],
                                  const RowScale (&row_scales)[kWarp], Accumulators<kOctets>& sums) const {
            RowScale scales[kEights];
#pragma unroll
            for (int r = 0; r < kEights; ++r) scales[r] = row_scales[r * kRowsOfEight + at_.g];
#pragma unroll
            for (int p = 0; p < kOctets; ++p) {
                const int pair = p * kPairsOfMma;
                if (pair >= n_pairs_) break;
                const uint8_t* q = &stage.values[pair + at_.g][group * kGroupValues + 8 * at_.t];
                const uint2 values = *reinterpret_cast<const uint2*>(q);
                const float4 pair_scales = *reinterpret_cast<const float4*>(&stage.scales[group][pair + 2 * at_.t]);
#pragma unroll
                for (int r = 0; r < kRowMmas; ++r) {
                    add_product<Groups::kHasMinimum>({rows[2 * r], rows[2 * r + 1]}, {scales[2 * r], scales[2 * r + 1]},
                                                     values, pair_scales, sums[r][p]);
                }
            }
        }

        const Place at_;
        const int n_pairs_;
    };
};

}  // namespace dgemma::cuda
