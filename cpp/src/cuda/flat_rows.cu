#include <algorithm>
#include <cmath>

#include "cuda/chunk.cuh"
#include "cuda/conditioning.h"
#include "cuda/embedding_types.cuh"

namespace dgemma::cuda {
namespace {

namespace wmma = nvcuda::wmma;
using Bf16 = __nv_bfloat16;

constexpr int kSlabChunks = kSlab / kChunk;
constexpr int kDepth = 32;  // tokens that a block holds in shared memory at a time
constexpr int kSide = 16;   // of the tensor cores' matrices
// Blocks on a multiprocessor: 256 rows make 88, an RTX 3090 has 82 of those. Q5_K's values ask for too many registers.
template <typename Reader>
constexpr int kBlocksAtOnce = 2;
template <>
constexpr int kBlocksAtOnce<Q5_KRows> = 1;
constexpr int kPad = 8;  // spreads rows over the banks; 16 bytes, so that rows stay aligned
// Eight warps share a tile of 128 x 64 as four by two of 32 x 32, each two by two matrices.
constexpr int kWarpSide = 32, kWarpColumns = kTileColumns / kWarpSide, kPerSide = kWarpSide / kSide;
static_assert(kTileRows / kWarpSide * kWarpColumns == kWarps);

struct alignas(8) Bf16Vector {
    Bf16 values[kVector];
};

/// Probabilities of one slab as BF16, a row for each flat one and zeros up to a whole tile.
__global__ void __launch_bounds__(kThreads)
    spread_slab(LogitRows rows, int n_chunks, int slab, const RowState* states, KeptTokens kept, Bf16* spread) {
    const int chunk = slab * kSlabChunks + static_cast<int>(blockIdx.x), place = static_cast<int>(blockIdx.y);
    const int n_flat = *kept.n_flat, n_padded = (n_flat + kTileRows - 1) / kTileRows * kTileRows;
    if (place >= n_padded) return;
    const bool is_real = place < n_flat && chunk < n_chunks;
    float x[kPerThread] = {};
    RowState state{};
    if (is_real) {
        const int row = kept.flat_rows[place];
        state = states[row];
        load_chunk(rows, row, chunk, x);
    }
    Bf16* to = spread + static_cast<int64_t>(place) * kSlab - static_cast<int64_t>(slab) * kSlab;
    for (int i = 0; i < kPerThread; i += kVector) {
        Bf16Vector vector;
        for (int k = 0; k < kVector; ++k) {
            const float p = is_real ? probability(rows, state, x[i + k]) : 0.0f;
            vector.values[k] = __float2bfloat16(p >= kept.cut ? p : 0.0f);
        }
        *reinterpret_cast<Bf16Vector*>(to + token_of(chunk, i)) = vector;
    }
}

struct Tiles {
    alignas(32) Bf16 p[kTileRows][kDepth + kPad];
    alignas(32) Bf16 e[kDepth][kTileColumns + kPad];
};

constexpr int kVectorValues = 8, kVectorBytes = 16;  // of an asynchronous copy

/// Begins to copy a tile's probabilities, as they lie in the slab.
__device__ void copy_probabilities(const Bf16* from, Tiles& tiles) {
    constexpr int kVectorsOfRow = kDepth / kVectorValues;
#pragma unroll
    for (int i = 0; i < kTileRows * kVectorsOfRow / kThreads; ++i) {
        const int place = i * kThreads + static_cast<int>(threadIdx.x);
        const int row = place / kVectorsOfRow, column = place % kVectorsOfRow * kVectorValues;
        copy_async<kVectorBytes>(shared_address(&tiles.p[row][column]),
                                 from + static_cast<int64_t>(row) * kSlab + column);
    }
    __pipeline_commit();
}

/// A thread's values of a tile's embedding. They are asked for without a branch, so that all loads are on their way
/// before the first is waited for.
template <typename Reader>
class EmbeddingValues {
  public:
    __device__ void load(const Embedding& embedding, int first_token, int n_vocab, int first_column) {
        const int column = first_column + column_;
        const bool column_exists = column < embedding.hidden;
#pragma unroll
        for (int i = 0; i < kValues; ++i) {
            const int token = first_token + row(i);
            const uint8_t* from = embedding.rows + (token < n_vocab ? token : 0) * embedding.row_bytes;
            const float value = Reader::value(from, column_exists ? column : 0);
            values_[i] = __float2bfloat16(column_exists && token < n_vocab ? value : 0.0f);
        }
    }

    __device__ void store(Tiles& tiles) const {
#pragma unroll
        for (int i = 0; i < kValues; ++i) tiles.e[row(i)][column_] = values_[i];
    }

  private:
    static constexpr int kValues = kDepth * kTileColumns / kThreads;
    static_assert(kThreads % kTileColumns == 0, "a thread stays in its column");

    __device__ int row(int i) const { return (i * kThreads + static_cast<int>(threadIdx.x)) / kTileColumns; }

    const int column_ = static_cast<int>(threadIdx.x) % kTileColumns;
    Bf16 values_[kValues];
};

using Sums = wmma::fragment<wmma::accumulator, kSide, kSide, kSide, float>;

__device__ void multiply_tiles(const Tiles& tiles, int row, int column, Sums (&sums)[kPerSide][kPerSide]) {
#pragma unroll 1  // the next matrices wait in shared memory, not in registers
    for (int k = 0; k < kDepth; k += kSide) {
        wmma::fragment<wmma::matrix_a, kSide, kSide, kSide, Bf16, wmma::row_major> a[kPerSide];
        wmma::fragment<wmma::matrix_b, kSide, kSide, kSide, Bf16, wmma::row_major> b[kPerSide];
        for (int i = 0; i < kPerSide; ++i) {
            wmma::load_matrix_sync(a[i], &tiles.p[row + i * kSide][k], kDepth + kPad);
            wmma::load_matrix_sync(b[i], &tiles.e[k][column + i * kSide], kTileColumns + kPad);
        }
        for (int r = 0; r < kPerSide; ++r) {
            for (int c = 0; c < kPerSide; ++c) wmma::mma_sync(sums[r][c], a[r], b[c], sums[r][c]);
        }
    }
}

/// sums [flat rows, hidden] += the slab's probabilities times its rows of the embedding; written anew by slab 0.
template <typename Reader>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<Reader>)
    multiply_slab(const Bf16* spread, int slab, int n_vocab, Embedding embedding, const int32_t* n_flat, float* sums) {
    __shared__ Tiles tiles[2];  // the one is filled while the other is multiplied
    const int first_row = static_cast<int>(blockIdx.y) * kTileRows;
    const int first_column = static_cast<int>(blockIdx.x) * kTileColumns;
    if (first_row >= *n_flat) return;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int row = warp / kWarpColumns * kWarpSide, column = warp % kWarpColumns * kWarpSide;
    const unsigned stride = gridDim.x * kTileColumns;
    float* mine = sums + static_cast<int64_t>(first_row + row) * stride + first_column + column;
    Sums tile[kPerSide][kPerSide];
    for (int r = 0; r < kPerSide; ++r) {
        for (int c = 0; c < kPerSide; ++c) {
            const float* from = mine + static_cast<int64_t>(r) * kSide * stride + c * kSide;
            if (slab == 0) {
                wmma::fill_fragment(tile[r][c], 0.0f);
            } else {
                wmma::load_matrix_sync(tile[r][c], from, stride, wmma::mem_row_major);
            }
        }
    }
    const Bf16* probabilities = spread + static_cast<int64_t>(first_row) * kSlab;
    const int first_token = slab * kSlab, n_tokens = n_vocab - first_token < kSlab ? n_vocab - first_token : kSlab;
    EmbeddingValues<Reader> values;
    copy_probabilities(probabilities, tiles[0]);
    values.load(embedding, first_token, n_vocab, first_column);
    values.store(tiles[0]);
    int now = 0;
    for (int k = 0; k < n_tokens; k += kDepth, now ^= 1) {
        __pipeline_wait_prior(0);
        __syncthreads();  // this tile is there, and the one before is read
        const int next = k + kDepth;
        if (next < n_tokens) {
            copy_probabilities(probabilities + next, tiles[now ^ 1]);
            values.load(embedding, first_token + next, n_vocab, first_column);
        }
        multiply_tiles(tiles[now], row, column, tile);
        if (next < n_tokens) values.store(tiles[now ^ 1]);
    }
    for (int r = 0; r < kPerSide; ++r) {
        for (int c = 0; c < kPerSide; ++c) {
            float* to = mine + static_cast<int64_t>(r) * kSide * stride + c * kSide;
            wmma::store_matrix_sync(to, tile[r][c], stride, wmma::mem_row_major);
        }
    }
}

__global__ void __launch_bounds__(kThreads)
    write_flat(const float* sums, int stride, KeptTokens kept, int hidden, float scale, float* soft) {
    const int column = static_cast<int>(blockIdx.x * kThreads + threadIdx.x), place = static_cast<int>(blockIdx.y);
    if (place >= *kept.n_flat || column >= hidden) return;
    soft[static_cast<int64_t>(kept.flat_rows[place]) * hidden + column] =
        sums[static_cast<int64_t>(place) * stride + column] * scale;
}

int tiles_of(int n, int side) { return (n + side - 1) / side; }

}  // namespace

void sum_flat_rows(const LogitRows& rows, const RowState* states, const KeptTokens& kept, const Embedding& embedding,
                   const FlatScratch& scratch, float* soft, const Stream& stream) {
    const int n_chunks = rows.n_chunks(), row_tiles = tiles_of(rows.canvas, kTileRows);
    const int column_tiles = tiles_of(embedding.hidden, kTileColumns);
    auto* spread = reinterpret_cast<Bf16*>(scratch.probabilities);
    for (int slab = 0; slab * kSlab < rows.n_vocab; ++slab) {
        launch(spread_slab, grid(kSlabChunks, row_tiles * kTileRows), kThreads, stream, rows, n_chunks, slab, states,
               kept, spread);
        with_reader(embedding.type, [&](auto reader) {
            launch(multiply_slab<decltype(reader)>, grid(column_tiles, row_tiles), kThreads, stream, spread, slab,
                   rows.n_vocab, embedding, kept.n_flat, scratch.sums);
        });
    }
    launch(write_flat, grid(tiles_of(embedding.hidden, kThreads), rows.canvas), kThreads, stream, scratch.sums,
           column_tiles * kTileColumns, kept, embedding.hidden, std::sqrt(static_cast<float>(embedding.hidden)), soft);
}

}  // namespace dgemma::cuda
