#include "cuda/expert_bf16.cuh"
#include "cuda/expert_int8.cuh"
#include "cuda/expert_tile.cuh"
#include "cuda/gelu.cuh"
#include "cuda/row_group.cuh"
#include "cuda/with_groups.cuh"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

constexpr int kGateRows = kWeightRows / 2;
static_assert(kGateRows == kGroupValues, "a block of gate_up_tile fills one group of the gated rows");

/// Eight rows of the gate, then the eight of up that belong to them, and so on: a thread of the tensor cores' product
/// has the sums of both.
struct GateUpRows {
    int first, ffn;
    __device__ int operator()(int eight) const { return first + eight / 2 * kRowsOfEight + eight % 2 * ffn; }
};

struct DownRows {
    int first;
    __device__ int operator()(int eight) const { return first + eight * kRowsOfEight; }
};

template <typename Product>
__device__ void gate_and_up(const ExpertShape& shape, const ExpertWeights& weights, const PairOrder& order,
                            const ProductRows& values, const ProductRows& gated, TileMemory<Product>& memory) {
    if (static_cast<int>(blockIdx.y) >= *order.n_tiles) return;
    const Tile tile = order.tiles[blockIdx.y];
    const int first = static_cast<int>(blockIdx.x) * kGateRows;
    float sums[kRowMmas][4];
    const auto token_of = [&](int pair) { return order.pairs[tile.first + pair] / shape.used; };
    multiply_tile<Product>(
        {weights.data + tile.expert * weights.matrix_bytes, weights.row_bytes, values, tile.count, shape.hidden},
        GateUpRows{first, shape.ffn}, token_of, memory, sums);
    const ThreadPlace at;
#pragma unroll
    for (int i = 0; i < kRowMmas * 2; ++i) {
        const int r = i / 2, row = (at.half * kRowMmas + r) * kRowsOfEight + at.g;
        if (at.share * kPairsOfMma >= tile.count) break;
        const float gate = sums[r][i % 2], up = sums[r][i % 2 + 2];
        memory.gated[at.share * kPairsOfMma + 2 * at.t + i % 2][row] = gelu(gate) * up;
    }
    __syncthreads();
    for (int pair = at.warp; pair < tile.count; pair += kWarps) {
        const int64_t place = tile.first + pair;
        store_group(memory.gated[pair][at.lane], gated, (place * shape.ffn + first) / kGroupValues);
    }
}

template <typename Product>
__device__ void down(const ExpertShape& shape, const ExpertWeights& weights, const PairOrder& order,
                     const ProductRows& gated, float* products, TileMemory<Product>& memory) {
    if (static_cast<int>(blockIdx.y) >= *order.n_tiles) return;
    const Tile tile = order.tiles[blockIdx.y];
    const int first = static_cast<int>(blockIdx.x) * kWeightRows;
    float sums[kRowMmas][4];
    const auto place_of = [&](int pair) { return tile.first + pair; };
    multiply_tile<Product>(
        {weights.data + tile.expert * weights.matrix_bytes, weights.row_bytes, gated, tile.count, shape.ffn},
        DownRows{first}, place_of, memory, sums);
    const ThreadPlace at;
#pragma unroll
    for (int i = 0; i < kRowMmas * 4; ++i) {
        const int row = first + (at.half * kRowMmas + i / 4) * kRowsOfMma + i % 4 / 2 * kRowsOfEight + at.g;
        const int pair = at.share * kPairsOfMma + 2 * at.t + i % 2;
        if (pair >= tile.count) continue;
        products[static_cast<int64_t>(order.pairs[tile.first + pair]) * shape.hidden + row] = sums[i / 4][i % 4];
    }
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, 2)
    gate_up_tile(ExpertShape shape, ExpertWeights weights, PairOrder order, ProductRows values, ProductRows gated) {
    __shared__ TileMemory<Int8Product<Groups>> memory;
    gate_and_up<Int8Product<Groups>>(shape, weights, order, values, gated, memory);
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, 2)
    down_tile(ExpertShape shape, ExpertWeights weights, PairOrder order, ProductRows gated, float* products) {
    __shared__ TileMemory<Int8Product<Groups>> memory;
    down<Int8Product<Groups>>(shape, weights, order, gated, products, memory);
}

constexpr int kBf16Blocks = 2;  // on a multiprocessor

template <typename Groups>
__global__ void __launch_bounds__(kThreads, kBf16Blocks)
    gate_up_bf16(ExpertShape shape, ExpertWeights weights, PairOrder order, ProductRows values, ProductRows gated) {
    auto& memory = dynamic_shared<TileMemory<Bf16Product<Groups>>>();
    gate_and_up<Bf16Product<Groups>>(shape, weights, order, values, gated, memory);
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, kBf16Blocks)
    down_bf16(ExpertShape shape, ExpertWeights weights, PairOrder order, ProductRows gated, float* products) {
    auto& memory = dynamic_shared<TileMemory<Bf16Product<Groups>>>();
    down<Bf16Product<Groups>>(shape, weights, order, gated, products, memory);
}

/// Four columns of a token for each thread.
__global__ void __launch_bounds__(kThreads)
    combine_vectors(ExpertShape shape, int64_t n_vectors, const float* weights, const float4* products, float4* sums) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= n_vectors) return;
    const int vectors = shape.hidden / 4, column = static_cast<int>(i % vectors);
    const int64_t first = i / vectors * shape.used;
    float4 sum{0, 0, 0, 0};
#pragma unroll 4
    for (int k = 0; k < shape.used; ++k) {
        const float weight = weights[first + k];
        const float4 product = products[(first + k) * vectors + column];
        sum.x += weight * product.x;
        sum.y += weight * product.y;
        sum.z += weight * product.z;
        sum.w += weight * product.w;
    }
    sums[i] = sum;
}

template <typename Launch>
void launch_with_groups(ggml_type type, Launch launch) {
    if (!with_groups(type, launch)) {
        throw RequestError(std::string("CUDA: no kernel multiplies experts of type ") + ggml_type_name(type));
    }
}

}  // namespace

bool has_expert_product(ggml_type type) {
    return with_groups(type, [](auto /*groups*/) {});
}

void multiply_gate_up(const ExpertShape& shape, int n, const ExpertWeights& weights, const PairOrder& order,
                      const ProductRows& rows, const ProductRows& gated, const Stream& stream) {
    const dim3 blocks = grid(shape.ffn / kGateRows, shape.most_tiles(n));
    launch_with_groups(weights.type, [&](auto groups) {
        using Groups = decltype(groups);
        if (rows.arithmetic == Arithmetic::kInt8) {
            launch(gate_up_tile<Groups>, blocks, kThreads, stream, shape, weights, order, rows, gated);
        } else {
            launch_shared(gate_up_bf16<Groups>, blocks, kThreads, sizeof(TileMemory<Bf16Product<Groups>>), stream,
                          shape, weights, order, rows, gated);
        }
    });
}

void multiply_down(const ExpertShape& shape, int n, const ExpertWeights& weights, const PairOrder& order,
                   const ProductRows& gated, float* products, const Stream& stream) {
    const dim3 blocks = grid(shape.hidden / kWeightRows, shape.most_tiles(n));
    launch_with_groups(weights.type, [&](auto groups) {
        using Groups = decltype(groups);
        if (gated.arithmetic == Arithmetic::kInt8) {
            launch(down_tile<Groups>, blocks, kThreads, stream, shape, weights, order, gated, products);
        } else {
            launch_shared(down_bf16<Groups>, blocks, kThreads, sizeof(TileMemory<Bf16Product<Groups>>), stream, shape,
                          weights, order, gated, products);
        }
    });
}

void combine_pairs(const ExpertShape& shape, int n, const float* weights, const float* products, float* sums,
                   const Stream& stream) {
    const int64_t n_vectors = static_cast<int64_t>(n) * shape.hidden / 4;
    launch(combine_vectors, grid(static_cast<int>((n_vectors + kThreads - 1) / kThreads), 1), kThreads, stream, shape,
           n_vectors, weights, reinterpret_cast<const float4*>(products), reinterpret_cast<float4*>(sums));
}

}  // namespace dgemma::cuda
