#include "cuda/dense_tile.cuh"
#include "cuda/gelu.cuh"
#include "cuda/row_group.cuh"
#include "cuda/with_strips.cuh"

namespace dgemma::cuda {
namespace {

constexpr int kGatedRows = kTileRows / 2;
static_assert(kGatedRows == kGroupValues, "a block of gated_tile fills one group of the gated rows");

/// The tile's rows of one weight; the last one again where there are no more.
struct RowsFrom {
    const DenseWeight& weight;
    int first;
    __device__ const uint8_t* operator()(int row) const {
        const int at = first + row, last = weight.rows - 1;
        return weight.data + (at < last ? at : last) * weight.row_bytes;
    }
};

/// Eight rows of the gate, then the eight of up that belong to them, and so on: a thread of the tensor cores' product
/// has the sums of both.
struct GatedRowsFrom {
    const DenseWeight &gate, &up;
    int first;
    __device__ const uint8_t* operator()(int row) const {
        const int eight = row / kRowsOfEight;
        const DenseWeight& weight = eight % 2 == 0 ? gate : up;
        return weight.data + (first + eight / 2 * kRowsOfEight + row % kRowsOfEight) * weight.row_bytes;
    }
};

template <typename Groups>
__global__ void __launch_bounds__(kThreads, Strip<Groups>::kBlocks)
    dense_tile(DenseBatch batch, ProductRows x, int n, int k) {
    __shared__ DenseStages<Groups> stages;
    const BatchTile tile = batch_tile(batch, kTileRows);
    const DenseWeight& weight = tile.product.weight;
    const TileTokens tokens = tile_tokens(x, n, k);
    DenseSums sums{};
    multiply_strips<Groups>(RowsFrom{weight, tile.first}, tokens, stages, sums);
    const DensePlace at;
#pragma unroll
    for (int i = 0; i < kTokenMmas * 4; ++i) {
        const int row = tile.first + at.sixteen * kRowsOfMma + i % 4 / 2 * kRowsOfEight + at.g;
        const int token = at.share * kTokensOfWarp + i / 4 * kTokensOfMma + 2 * at.t + i % 2;
        if (token >= tokens.count || row >= weight.rows) continue;
        tile.product.out[static_cast<int64_t>(tokens.first + token) * weight.rows + row] = sums[i / 4][i % 4];
    }
}

template <typename Groups>
union GatedMemory {
    DenseStages<Groups> stages;
    float gated[kTileTokens][kGatedRows + 1];
};

template <typename Groups>
__global__ void __launch_bounds__(kThreads, Strip<Groups>::kBlocks)
    gated_tile(DenseGate weights, ProductRows x, int n, int k) {
    __shared__ GatedMemory<Groups> memory;
    const int first = static_cast<int>(blockIdx.y) * kGatedRows;
    const TileTokens tokens = tile_tokens(x, n, k);
    DenseSums sums{};
    multiply_strips<Groups>(GatedRowsFrom{weights.gate, weights.up, first}, tokens, memory.stages, sums);
    __syncthreads();  // the last strip is read
    const DensePlace at;
#pragma unroll
    for (int i = 0; i < kTokenMmas * 2; ++i) {
        const int token = at.share * kTokensOfWarp + i / 2 * kTokensOfMma + 2 * at.t + i % 2;
        memory.gated[token][at.sixteen * kRowsOfEight + at.g] = gelu(sums[i / 2][i % 2]) * sums[i / 2][i % 2 + 2];
    }
    __syncthreads();
    for (int token = at.warp; token < tokens.count; token += kWarps) {
        const int64_t place = static_cast<int64_t>(tokens.first + token) * weights.gate.rows + first;
        store_group(memory.gated[token][at.lane], weights.gated, place / kGroupValues);
    }
}

}  // namespace

bool has_dense_product(ggml_type type) {
    return with_strips(type, [](auto /*groups*/) {});
}

void launch_int8(const DenseBatch& batch, int n_tiles, const ProductRows& x, int n, int k, const Stream& stream) {
    with_strips(batch.products[0].weight.type, [&](auto groups) {
        launch(dense_tile<decltype(groups)>, grid(tiles(n, kTileTokens), n_tiles), kThreads, stream, batch, x, n, k);
    });
}

void launch_int8(const DenseGate& gate, const ProductRows& x, int n, int k, const Stream& stream) {
    with_strips(gate.gate.type, [&](auto groups) {
        launch(gated_tile<decltype(groups)>, grid(tiles(n, kTileTokens), gate.gate.rows / kGatedRows), kThreads, stream,
               gate, x, n, k);
    });
}

}  // namespace dgemma::cuda
