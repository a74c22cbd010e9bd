#include <algorithm>

#include "cuda/dense_bf16_sums.cuh"
#include "cuda/gelu.cuh"
#include "cuda/row_group.cuh"
#include "cuda/with_strips.cuh"

namespace dgemma::cuda {
namespace {

// Fewer rows to a tile cost more copies for each product, but may need fewer rounds of blocks.
constexpr int kMostRows = 128, kFewRows = 96, kGatedRows = kMostRows / 2;

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

/// The memory that a launch asks for: stages, and then the shares' sums.
template <typename Tile>
size_t memory_bytes(int n_stages) {
    return std::max(static_cast<size_t>(n_stages) * sizeof(typename Tile::Stage), sizeof(Bf16Partials<Tile>));
}

template <typename Tile>
struct TileMemory {
    unsigned char* bytes = dynamic_bytes();
    __device__ typename Tile::Stage* stages() const { return reinterpret_cast<typename Tile::Stage*>(bytes); }
    __device__ Bf16Partials<Tile>& partials() const { return *reinterpret_cast<Bf16Partials<Tile>*>(bytes); }
};

template <typename Groups, int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    dense_bf16_tile(DenseBatch batch, ProductRows x, int n, int k, int n_stages) {
    using Tile = Bf16Tile<Groups, kRows>;
    __shared__ typename Tile::Scales scales;
    const TileMemory<Tile> memory;
    const BatchTile tile = batch_tile(batch, kRows);
    const DenseProduct& product = batch.parts[tile.product].product;
    const DenseWeight& weight = product.weight;
    const TileTokens tokens = tile_tokens(x, n, k);
    typename Tile::Sums sums{};
    multiply_bf16_strips<Tile>(RowsFrom{weight, tile.first}, weight.row_bytes, tokens, memory.stages(), n_stages,
                               scales, sums);
    const Bf16Place at;
    const auto place_of = [](int eight, int g) { return eight * kRowsOfEight + g; };
    sum_shares<Tile>(sums, tokens.count, memory.partials(), place_of, [&](int first, int count) {
        for (int token = at.warp; token < count; token += kWarps) {
            const int64_t to = static_cast<int64_t>(tokens.first + first + token) * weight.rows + tile.first;
#pragma unroll
            for (int row = at.lane; row < kRows; row += kWarp) {
                if (tile.first + row >= weight.rows) break;
                product.out[to + row] = sum_of(memory.partials(), token, row);
            }
        }
    });
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, 1)
    gated_bf16_tile(DenseGate weights, ProductRows x, int n, int k, int n_stages) {
    using Tile = Bf16Tile<Groups, kMostRows>;
    __shared__ typename Tile::Scales scales;
    const TileMemory<Tile> memory;
    const int first_row = static_cast<int>(blockIdx.y) * kGatedRows, ffn = weights.gate.rows;
    const TileTokens tokens = tile_tokens(x, n, k);
    typename Tile::Sums sums{};
    multiply_bf16_strips<Tile>(GatedRowsFrom{weights, first_row}, weights.gate.row_bytes, tokens, memory.stages(),
                               n_stages, scales, sums);
    const Bf16Place at;
    // The gate's rows together, then up's.
    const auto place_of = [](int eight, int g) { return eight % 2 * kGatedRows + eight / 2 * kRowsOfEight + g; };
    sum_shares<Tile>(sums, tokens.count, memory.partials(), place_of, [&](int first, int count) {
        for (int token = at.warp; token < count; token += kWarps) {
            const int64_t to = static_cast<int64_t>(tokens.first + first + token) * ffn + first_row;
#pragma unroll
            for (int row = 0; row < kGatedRows; row += kGroupValues) {
                if (first_row + row >= ffn) break;
                const float gate = sum_of(memory.partials(), token, row + at.lane);
                const float up = sum_of(memory.partials(), token, kGatedRows + row + at.lane);
                store_group(gelu(gate) * up, weights.gated, (to + row) / kGroupValues);
            }
        }
    });
}

/// As many as the card has memory for and the columns fill: what is asked for early hides how long memory takes.
template <typename Tile>
int stages_for(int k) {
    const size_t fit = (most_shared() - sizeof(typename Tile::Scales)) / sizeof(typename Tile::Stage);
    const int most = std::min(static_cast<int>(fit), kMostStages), n_strips = (k + kStripValues - 1) / kStripValues;
    return std::max(2, std::min(most, n_strips));
}

template <typename Tile, typename Kernel, typename Weights>
void launch_tiles(Kernel kernel, int n_tiles, const Weights& weights, const ProductRows& x, int n, int k,
                  const Stream& stream) {
    const int n_stages = stages_for<Tile>(k);
    launch_shared(kernel, grid(tiles(n, kTileTokens), n_tiles), kThreads, memory_bytes<Tile>(n_stages), stream, weights,
                  x, n, k, n_stages);
}

/// How long a launch takes, in rows of one block: each multiprocessor has one at a time. Estimated: what does not
/// depend on a tile's rows, such as the copies of tokens, takes as long as 32 more.
int duration(const DenseBatch& batch, int tile_rows, int n) {
    return tiles(batch.n_tiles * tiles(n, kTileTokens), multiprocessors()) * (tile_rows + 32);
}

}  // namespace

void launch_bf16(const DensePart* parts, int count, const ProductRows& x, int n, int k, const Stream& stream) {
    const DenseBatch most = batch_of(parts, count, kMostRows), few = batch_of(parts, count, kFewRows);
    with_strips(parts[0].product.weight.type, [&](auto groups) {
        using Groups = decltype(groups);
        if (duration(few, kFewRows, n) < duration(most, kMostRows, n)) {
            launch_tiles<Bf16Tile<Groups, kFewRows>>(dense_bf16_tile<Groups, kFewRows>, few.n_tiles, few, x, n, k,
                                                     stream);
        } else {
            launch_tiles<Bf16Tile<Groups, kMostRows>>(dense_bf16_tile<Groups, kMostRows>, most.n_tiles, most, x, n, k,
                                                      stream);
        }
    });
}

void launch_bf16(const DenseGate& gate, const ProductRows& x, int n, int k, const Stream& stream) {
    with_strips(gate.gate.type, [&](auto groups) {
        using Groups = decltype(groups);
        launch_tiles<Bf16Tile<Groups, kMostRows>>(gated_bf16_tile<Groups>, tiles(gate.gate.rows, kGatedRows), gate, x,
                                                  n, k, stream);
    });
}

}  // namespace dgemma::cuda
