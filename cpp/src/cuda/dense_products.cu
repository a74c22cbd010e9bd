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

/// The part's columns of a tile's rows.
__device__ TileTokens tokens_of(const DensePart& part, TileTokens tokens) {
    tokens.rows.values += part.first_column;
    tokens.rows.scales += part.first_column / kGroupValues;
    tokens.k = part.columns;
    return tokens;
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, Strip<Groups>::kBlocks)
    dense_tile(DenseBatch batch, ProductRows x, int n, int k) {
    __shared__ DenseStages<Groups> stages;
    const BatchTile tile = batch_tile(batch, kTileRows);
    const DensePart& part = batch.parts[tile.product];
    const DenseWeight& weight = part.product.weight;
    const TileTokens tokens = tokens_of(part, tile_tokens(x, n, k));
    DenseSums sums{};
    multiply_strips<Groups>(RowsFrom{weight, tile.first}, weight.row_bytes, tokens, stages, sums);
    const DensePlace at;
    const int row = tile.first + at.sixteen * kRowsOfMma + at.g, token = at.share * kTokensOfWarp + 2 * at.t;
    float* out = part.product.out + static_cast<int64_t>(tokens.first + token) * weight.rows + row;
#pragma unroll
    for (int i = 0; i < kTokenMmas * 4; ++i) {
        const int more_tokens = i / 4 * kTokensOfMma + i % 2, more_rows = i % 4 / 2 * kRowsOfEight;
        if (token + more_tokens >= tokens.count || row + more_rows >= weight.rows) continue;
        out[more_tokens * weight.rows + more_rows] = sums[i / 4][i % 4];
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
    multiply_strips<Groups>(GatedRowsFrom{weights.gate, weights.up, first}, weights.gate.row_bytes, tokens,
                            memory.stages, sums);
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

void launch_int8(const DensePart* parts, int count, const ProductRows& x, int n, int k, const Stream& stream) {
    const DenseBatch batch = batch_of(parts, count, kTileRows);
    with_strips(parts[0].product.weight.type, [&](auto groups) {
        launch(dense_tile<decltype(groups)>, grid(tiles(n, kTileTokens), batch.n_tiles), kThreads, stream, batch, x, n,
               k);
    });
}

void launch_int8(const DenseGate& gate, const ProductRows& x, int n, int k, const Stream& stream) {
    with_strips(gate.gate.type, [&](auto groups) {
        launch(gated_tile<decltype(groups)>, grid(tiles(n, kTileTokens), gate.gate.rows / kGatedRows), kThreads, stream,
               gate, x, n, k);
    });
}

}  // namespace dgemma::cuda
