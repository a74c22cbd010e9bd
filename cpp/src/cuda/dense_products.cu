#include <string>

#include "cuda/dense_tile.cuh"
#include "cuda/gelu.cuh"
#include "cuda/row_group.cuh"
#include "cuda/with_groups.cuh"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

constexpr int kGatedRows = kTileRows / 2;
static_assert(kGatedRows == kGroupValues, "a block of gated_tile fills one group of the gated rows");

__device__ TileTokens tile_tokens(const ProductRows& x, int n, int k) {
    const int first = static_cast<int>(blockIdx.x) * kTileTokens, left = n - first;
    return {x, first, left < kTileTokens ? left : kTileTokens, k};
}

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
    dense_tile(DenseWeight weight, float* out, ProductRows x, int n, int k) {
    __shared__ DenseStages<Groups> stages;
    const int first = static_cast<int>(blockIdx.y) * kTileRows;
    const TileTokens tokens = tile_tokens(x, n, k);
    DenseSums sums{};
    multiply_strips<Groups>(RowsFrom{weight, first}, tokens, stages, sums);
    const DensePlace at;
#pragma unroll
    for (int i = 0; i < kTokenMmas * 4; ++i) {
        const int row = first + at.sixteen * kRowsOfMma + i % 4 / 2 * kRowsOfEight + at.g;
        const int token = at.share * kTokensOfWarp + i / 4 * kTokensOfMma + 2 * at.t + i % 2;
        if (token >= tokens.count || row >= weight.rows) continue;
        out[static_cast<int64_t>(tokens.first + token) * weight.rows + row] = sums[i / 4][i % 4];
    }
}

template <typename Groups>
union GatedMemory {
    DenseStages<Groups> stages;
    float gated[kTileTokens][kGatedRows + 1];
};

template <typename Groups>
__global__ void __launch_bounds__(kThreads, Strip<Groups>::kBlocks)
    gated_tile(DenseWeight gate, DenseWeight up, ProductRows x, ProductRows gated, int n, int k) {
    __shared__ GatedMemory<Groups> memory;
    const int first = static_cast<int>(blockIdx.y) * kGatedRows;
    const TileTokens tokens = tile_tokens(x, n, k);
    DenseSums sums{};
    multiply_strips<Groups>(GatedRowsFrom{gate, up, first}, tokens, memory.stages, sums);
    __syncthreads();  // the last strip is read
    const DensePlace at;
#pragma unroll
    for (int i = 0; i < kTokenMmas * 2; ++i) {
        const int token = at.share * kTokensOfWarp + i / 2 * kTokensOfMma + 2 * at.t + i % 2;
        memory.gated[token][at.sixteen * kRowsOfEight + at.g] = gelu(sums[i / 2][i % 2]) * sums[i / 2][i % 2 + 2];
    }
    __syncthreads();
    for (int token = at.warp; token < tokens.count; token += kWarps) {
        const int64_t place = static_cast<int64_t>(tokens.first + token) * gate.rows + first;
        store_group(memory.gated[token][at.lane], gated, place / kGroupValues);
    }
}

/// launch(groups) for weights of this type; false where there is none.
template <typename Launch>
bool with_strips(ggml_type type, Launch launch) {
    if (type == GGML_TYPE_Q6_K) return launch(Q6_KGroups()), true;
    return with_groups(type, launch);
}

int tiles(int n, int size) { return (n + size - 1) / size; }

void check(const DenseWeight& weight, const ProductRows& x, int n, int k) {
    const std::string product = std::string("CUDA: no kernel multiplies ") + ggml_type_name(weight.type) + " [" +
                                std::to_string(weight.rows) + ", " + std::to_string(k) + "] by " + std::to_string(n) +
                                " rows";
    if (x.arithmetic != Arithmetic::kInt8) throw RequestError(product + " of 16 bits");
    const bool is_whole = k >= kGroupValues && k % kGroupValues == 0 && k % ggml_blck_size(weight.type) == 0;
    const bool fits = weight.rows >= 1 && tiles(weight.rows, kTileRows) <= UINT16_MAX;
    if (!has_dense_product(weight.type) || n < 1 || n > kMaxDenseRows || !is_whole || !fits)
        throw RequestError(product);
}

}  // namespace

bool has_dense_product(ggml_type type) {
    return with_strips(type, [](auto /*groups*/) {});
}

void multiply_dense(const DenseProduct* products, int count, const ProductRows& x, int n, int k, const Stream& stream) {
    for (int i = 0; i < count; ++i) check(products[i].weight, x, n, k);
    for (int i = 0; i < count; ++i) {
        const DenseWeight& weight = products[i].weight;
        with_strips(weight.type, [&](auto groups) {
            launch(dense_tile<decltype(groups)>, grid(tiles(n, kTileTokens), tiles(weight.rows, kTileRows)), kThreads,
                   stream, weight, products[i].out, x, n, k);
        });
    }
}

void multiply_gated(const DenseWeight& gate, const DenseWeight& up, const ProductRows& x, const ProductRows& gated,
                    int n, int k, const Stream& stream) {
    check(gate, x, n, k);
    check(up, x, n, k);
    if (gate.type != up.type || gate.rows != up.rows || gate.rows % kGatedRows != 0) {
        throw RequestError("CUDA: no kernel multiplies a gate and up of " + std::to_string(gate.rows) + " and " +
                           std::to_string(up.rows) + " rows, or of different types");
    }
    with_strips(gate.type, [&](auto groups) {
        launch(gated_tile<decltype(groups)>, grid(tiles(n, kTileTokens), gate.rows / kGatedRows), kThreads, stream,
               gate, up, x, gated, n, k);
    });
}

}  // namespace dgemma::cuda
