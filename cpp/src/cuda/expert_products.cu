#include "cuda/expert_bf16.cuh"
#include "cuda/expert_int8.cuh"
#include "cuda/expert_tile.cuh"
#include "cuda/gelu.cuh"
#include "cuda/row_group.cuh"
#include "cuda/with_groups.cuh"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

constexpr int kBlocks = 2;  // on a multiprocessor, where there is shared memory for them

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

/// What a block of a tile multiplies. eights: of rows that there are from the block's first on.
__device__ inline TileWork tile_work(const ExpertWeights& weights, const Tile& tile, const ProductRows& values,
                                     int eights, int k) {
    const auto row_bytes = static_cast<unsigned>(weights.row_bytes);
    const auto matrix_bytes = static_cast<unsigned>(weights.matrix_bytes);
    const uint64_t first = static_cast<uint64_t>(static_cast<unsigned>(tile.expert)) * matrix_bytes;
    return {weights.data + first, row_bytes, matrix_bytes, values, eights, tile.count, k};
}

/// The token of a pair, without a division.
struct TokenOf {
    const int32_t* pairs;
    unsigned inverse;  // 2^31 / used, rounded up: exact below 2^26 pairs
    __device__ unsigned operator()(int i) const { return __umulhi(2 * static_cast<unsigned>(pairs[i]), inverse); }
};

template <typename Product>
__device__ void gate_and_up(const ExpertShape& shape, const ExpertWeights& weights, const PairOrder& order,
                            unsigned inverse, const ProductRows& values, const ProductRows& gated,
                            TileMemory<Product>& memory) {
    constexpr int kGateRows = Product::kRows / 2;
    const Tile tile = order.tiles[blockIdx.y];  // read beside the number of them: one wait, not two
    if (static_cast<int>(blockIdx.y) >= *order.n_tiles) return;
    const int first = static_cast<int>(blockIdx.x) * kGateRows;
    WholeSums<Product> sums;
    multiply_tile<Product>(tile_work(weights, tile, values, 2 * ((shape.ffn - first) / kRowsOfEight), shape.hidden),
                           GateUpRows{first, shape.ffn}, TokenOf{order.pairs + tile.first, inverse}, memory, sums);
    const ThreadPlace<Product::kShares> at;
#pragma unroll
    for (int o = 0; o < kPairMmas / Product::kShares; ++o) {
        const int pair = (o * Product::kShares + at.share) * kPairsOfMma;
        if (pair >= tile.count) break;
#pragma unroll
        for (int i = 0; i < kRowMmas * 2; ++i) {
            const int row = (at.part * kRowMmas + i / 2) * kRowsOfEight + at.g;
            const float gate = sums[o][i / 2][i % 2], up = sums[o][i / 2][i % 2 + 2];
            memory.gated[pair + 2 * at.t + i % 2][row] = gelu(gate) * up;
        }
    }
    __syncthreads();
    for (int pair = at.warp; pair < tile.count; pair += kWarps) {
        const int64_t group = ((tile.first + pair) * static_cast<int64_t>(shape.ffn) + first) / kGroupValues;
#pragma unroll
        for (int i = 0; i < kGateRows / kGroupValues; ++i) {
            if (first + i * kGroupValues >= shape.ffn) break;
            store_group(memory.gated[pair][i * kGroupValues + at.lane], gated, group + i);
        }
    }
}

template <typename Product>
__device__ void down(const ExpertShape& shape, const ExpertWeights& weights, const PairOrder& order,
                     const ProductRows& gated, float* products, TileMemory<Product>& memory) {
    const Tile tile = order.tiles[blockIdx.y];
    if (static_cast<int>(blockIdx.y) >= *order.n_tiles) return;
    const int first = static_cast<int>(blockIdx.x) * Product::kRows;
    WholeSums<Product> sums;
    const auto place_of = [&](int pair) { return static_cast<unsigned>(tile.first + pair); };
    multiply_tile<Product>(tile_work(weights, tile, gated, (shape.hidden - first) / kRowsOfEight, shape.ffn),
                           DownRows{first}, place_of, memory, sums);
    const ThreadPlace<Product::kShares> at;
    const int row = first + at.part * kWarp + at.g;
    if (row >= shape.hidden) return;
#pragma unroll
    for (int i = 0; i < kPairMmas / Product::kShares * 2; ++i) {
        const int pair = (i / 2 * Product::kShares + at.share) * kPairsOfMma + 2 * at.t + i % 2;
        if (pair >= tile.count) continue;
        float* to = products + static_cast<int64_t>(order.pairs[tile.first + pair]) * shape.hidden + row;
#pragma unroll
        for (int eight = 0; eight < kEights; ++eight) {
            to[eight * kRowsOfEight] = sums[i / 2][eight / 2][eight % 2 * 2 + i % 2];
        }
    }
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, kBlocks)
    gate_up_tile(ExpertShape shape, ExpertWeights weights, PairOrder order, unsigned inverse, ProductRows values,
                 ProductRows gated) {
    __shared__ TileMemory<Int8Product<Groups>> memory;
    gate_and_up<Int8Product<Groups>>(shape, weights, order, inverse, values, gated, memory);
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, kBlocks)
    down_tile(ExpertShape shape, ExpertWeights weights, PairOrder order, ProductRows gated, float* products) {
    __shared__ TileMemory<Int8Product<Groups>> memory;
    down<Int8Product<Groups>>(shape, weights, order, gated, products, memory);
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, kBlocks)
    gate_up_bf16(ExpertShape shape, ExpertWeights weights, PairOrder order, unsigned inverse, ProductRows values,
                 ProductRows gated) {
    auto& memory = dynamic_shared<TileMemory<Bf16Product<Groups>>>();
    gate_and_up<Bf16Product<Groups>>(shape, weights, order, inverse, values, gated, memory);
}

template <typename Groups>
__global__ void __launch_bounds__(kThreads, kBlocks)
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

/// Blocks of `rows` rows each, times the most tiles.
dim3 tiles_of(int n_rows, int rows, const ExpertShape& shape, int n) {
    return grid((n_rows + rows - 1) / rows, shape.most_tiles(n));
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
    const unsigned inverse = ((1u << 31) + static_cast<unsigned>(shape.used) - 1) / static_cast<unsigned>(shape.used);
    launch_with_groups(weights.type, [&](auto groups) {
        using Groups = decltype(groups);
        using Int8 = Int8Product<Groups>;
        using Bf16 = Bf16Product<Groups>;
        if (rows.arithmetic == Arithmetic::kInt8) {
            launch(gate_up_tile<Groups>, tiles_of(2 * shape.ffn, Int8::kRows, shape, n), kThreads, stream, shape,
                   weights, order, inverse, rows, gated);
        } else {
            launch_shared(gate_up_bf16<Groups>, tiles_of(2 * shape.ffn, Bf16::kRows, shape, n), kThreads,
                          sizeof(TileMemory<Bf16>), stream, shape, weights, order, inverse, rows, gated);
        }
    });
}

void multiply_down(const ExpertShape& shape, int n, const ExpertWeights& weights, const PairOrder& order,
                   const ProductRows& gated, float* products, const Stream& stream) {
    launch_with_groups(weights.type, [&](auto groups) {
        using Groups = decltype(groups);
        using Int8 = Int8Product<Groups>;
        using Bf16 = Bf16Product<Groups>;
        if (gated.arithmetic == Arithmetic::kInt8) {
            launch(down_tile<Groups>, tiles_of(shape.hidden, Int8::kRows, shape, n), kThreads, stream, shape, weights,
                   order, gated, products);
        } else {
            launch_shared(down_bf16<Groups>, tiles_of(shape.hidden, Bf16::kRows, shape, n), kThreads,
                          sizeof(TileMemory<Bf16>), stream, shape, weights, order, gated, products);
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
