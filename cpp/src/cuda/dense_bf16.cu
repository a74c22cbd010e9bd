#include <algorithm>

#include "cuda/dense_bf16_sums.cuh"
#include "cuda/gelu.cuh"
#include "cuda/row_group.cuh"
#include "cuda/with_strips.cuh"

namespace dgemma::cuda {
namespace {

constexpr int kGatedRows = kBf16TileRows / 2;

__device__ int step(int n_rows, const DenseWeight& weight) { return n_rows * static_cast<int>(weight.row_bytes); }

struct RowsFrom {
    const DenseWeight& weight;
    int first;
    __device__ TileRows operator()(int row) const {
        const int at = first + row, left = weight.rows - at;
        return {weight.data + at * weight.row_bytes, step(kCopyRows, weight), (left + kCopyRows - 1) / kCopyRows};
    }
};

/// Eight rows of the gate, then the eight of up that belong to them, and so on.
struct GatedRowsFrom {
    const DenseGate& weights;
    int first;
    static constexpr int kStep = kCopyRows / 2;
    __device__ TileRows operator()(int row) const {
        const int eight = row / kRowsOfEight, at = first + eight / 2 * kRowsOfEight + row % kRowsOfEight;
        const DenseWeight& weight = eight % 2 == 0 ? weights.gate : weights.up;
        return {weight.data + at * weight.row_bytes, step(kStep, weight), (weight.rows - at + kStep - 1) / kStep};
    }
};

/// Shared memory of so many stages.
template <typename Groups>
constexpr size_t memory_bytes(int n_stages) {
    const size_t stages = static_cast<size_t>(n_stages) * sizeof(Bf16Stage<Groups>);
    return stages > sizeof(Bf16Partials) ? stages : sizeof(Bf16Partials);
}

template <typename Groups>
struct TileMemory {
    Bf16Stage<Groups>* stages;
    Bf16Partials& partials;  // the same memory
    __device__ explicit TileMemory(unsigned char* bytes)
        : stages(reinterpret_cast<Bf16Stage<Groups>*>(bytes)), partials(*reinterpret_cast<Bf16Partials*>(bytes)) {}
};

template <typename Groups>
__global__ void __launch_bounds__(kThreads, 1)
    dense_bf16_tile(DenseBatch batch, ProductRows x, int n, int k, int n_stages) {
    __shared__ Bf16Scales scales;
    const TileMemory<Groups> memory(dynamic_bytes());
    const BatchTile tile = batch_tile(batch, kBf16TileRows);
    const DenseWeight& weight = tile.product.weight;
    const TileTokens tokens = tile_tokens(x, n, k);
    Bf16Sums sums{};
    multiply_bf16_strips<Groups>(RowsFrom{weight, tile.first}, weight.row_bytes, tokens, memory.stages, n_stages,
                                 scales, sums);
    const Bf16Place at;
    const auto place_of = [](int eight, int g) { return eight * kRowsOfEight + g; };
    sum_shares(sums, tokens.count, memory.partials, place_of, [&](int first, int count) {
        for (int token = at.warp; token < count; token += kWarps) {
            const int64_t to = static_cast<int64_t>(tokens.first + first + token) * weight.rows + tile.first;
#pragma unroll
            for (int row = at.lane; row < kBf16TileRows; row += kWarp) {
                if (tile.first + row >= weight.rows) break;
                tile.product.out[to + row] = sum_of(memory.partials, token, row);
            }
        }
    });
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, 1)
    gated_bf16_tile(DenseGate weights, ProductRows x, int n, int k, int n_stages) {
    __shared__ Bf16Scales scales;
    const TileMemory<Groups> memory(dynamic_bytes());
    const int first_row = static_cast<int>(blockIdx.y) * kGatedRows, ffn = weights.gate.rows;
    const TileTokens tokens = tile_tokens(x, n, k);
    Bf16Sums sums{};
    multiply_bf16_strips<Groups>(GatedRowsFrom{weights, first_row}, weights.gate.row_bytes, tokens, memory.stages,
                                 n_stages, scales, sums);
    const Bf16Place at;
    // The gate's rows together, then up's.
    const auto place_of = [](int eight, int g) { return eight % 2 * kGatedRows + eight / 2 * kRowsOfEight + g; };
    sum_shares(sums, tokens.count, memory.partials, place_of, [&](int first, int count) {
        for (int token = at.warp; token < count; token += kWarps) {
            const int64_t to = static_cast<int64_t>(tokens.first + first + token) * ffn + first_row;
#pragma unroll
            for (int row = 0; row < kGatedRows; row += kGroupValues) {
                if (first_row + row >= ffn) break;
                const float gate = sum_of(memory.partials, token, row + at.lane);
                const float up = sum_of(memory.partials, token, kGatedRows + row + at.lane);
                store_group(gelu(gate) * up, weights.gated, (to + row) / kGroupValues);
            }
        }
    });
}

/// As many as the card has memory for and the columns fill: what is asked for early hides how long memory takes.
template <typename Groups>
int stages_for(int k) {
    const size_t fit = (most_shared() - sizeof(Bf16Scales)) / sizeof(Bf16Stage<Groups>);
    const int most = std::min(static_cast<int>(fit), kMostStages), n_strips = (k + kStripValues - 1) / kStripValues;
    return std::max(2, std::min(most, n_strips));
}

template <typename Groups, typename Kernel, typename Weights>
void launch_tiles(Groups /*type*/, Kernel kernel, int n_tiles, const Weights& weights, const ProductRows& x, int n,
                  int k, const Stream& stream) {
    const int n_stages = stages_for<Groups>(k);
    launch_shared(kernel, grid(tiles(n, kTileTokens), n_tiles), kThreads, memory_bytes<Groups>(n_stages), stream,
                  weights, x, n, k, n_stages);
}

}  // namespace

void launch_bf16(const DenseBatch& batch, int n_tiles, const ProductRows& x, int n, int k, const Stream& stream) {
    with_strips(batch.products[0].weight.type, [&](auto groups) {
        launch_tiles(groups, dense_bf16_tile<decltype(groups)>, n_tiles, batch, x, n, k, stream);
    });
}

void launch_bf16(const DenseGate& gate, const ProductRows& x, int n, int k, const Stream& stream) {
    with_strips(gate.gate.type, [&](auto groups) {
        launch_tiles(groups, gated_bf16_tile<decltype(groups)>, tiles(gate.gate.rows, kGatedRows), gate, x, n, k,
                     stream);
    });
}

}  // namespace dgemma::cuda
