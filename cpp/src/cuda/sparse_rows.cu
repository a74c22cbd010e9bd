#include <cmath>

#include "cuda/chunk.cuh"
#include "cuda/conditioning.h"
#include "cuda/embedding_types.cuh"

namespace dgemma::cuda {
namespace {

// Blocks that share a row's chunks: nearly all of those have nothing to count or list where rows are sure, and a block
// for each would do little but begin and end.
constexpr int kRowBlocks = 8;

/// Whether any token of a chunk passes the cut; most chunks of a row that is sure of its token do not.
__device__ bool has_kept(const LogitRows& rows, const ChunkStats& chunk, const RowState& row, float cut) {
    return probability(rows, row, chunk.max) >= cut;
}

__device__ bool is_kept(float probability, float cut) { return probability >= cut && probability > 0; }

__global__ void __launch_bounds__(kThreads)
    count_chunks(LogitRows rows, int n_chunks, const ChunkStats* stats, const RowState* states, KeptTokens kept) {
    const int row = static_cast<int>(blockIdx.y);
    const RowState state = states[row];
    for (int chunk = static_cast<int>(blockIdx.x); chunk < n_chunks; chunk += kRowBlocks) {
        const int index = row * n_chunks + chunk;
        int n = 0;
        if (has_kept(rows, stats[index], state, kept.cut)) {  // the same for the whole block
            float x[kPerThread];
            load_chunk(rows, row, chunk, x);
#pragma unroll
            for (int i = 0; i < kPerThread; ++i) n += is_kept(probability(rows, state, x[i]), kept.cut) ? 1 : 0;
            n = block_reduce(n, Sum());
        }
        if (threadIdx.x == 0) kept.offsets[index] = n;
    }
}

/// From the counts in `offsets` to where each chunk's tokens begin; their number.
__device__ int place_chunks(int32_t* offsets, int n_chunks) {
    int n = 0;
    for (int chunk = 0; chunk < n_chunks; ++chunk) {
        const int count = offsets[chunk];
        offsets[chunk] = n;
        n += count;
    }
    return n;
}

__global__ void __launch_bounds__(kThreads) place_rows(int canvas, int n_chunks, KeptTokens kept) {
    int n_flat = 0;
    for (int first = 0; first < canvas; first += kThreads) {
        const int row = first + static_cast<int>(threadIdx.x);
        int is_flat = 0;
        if (row < canvas) {
            const int n = place_chunks(kept.offsets + row * n_chunks, n_chunks);
            kept.n_kept[row] = n;
            is_flat = n > kept.max_kept ? 1 : 0;
        }
        const Prefix<int> prefix = block_prefix(is_flat);
        if (is_flat != 0) kept.flat_rows[n_flat + prefix.through - 1] = row;
        n_flat += prefix.total;
    }
    if (threadIdx.x == 0) *kept.n_flat = n_flat;
}

/// Writes the tokens of a chunk to its place in the row's list.
__device__ void list_chunk(const LogitRows& rows, int row, int chunk, const RowState& state, float cut,
                           KeptToken* list) {
    float x[kPerThread];
    load_chunk(rows, row, chunk, x);
    for (int i = 0; i < kPerThread; i += kVector) {
        int n = 0;
        for (int k = 0; k < kVector; ++k) n += is_kept(probability(rows, state, x[i + k]), cut) ? 1 : 0;
        const Prefix<int> prefix = block_prefix(n);
        int at = prefix.through - n;
        for (int k = 0; k < kVector; ++k) {
            const float p = probability(rows, state, x[i + k]);
            if (is_kept(p, cut)) list[at++] = {token_of(chunk, i + k), p};
        }
        list += prefix.total;
    }
}

__global__ void __launch_bounds__(kThreads)
    list_chunks(LogitRows rows, int n_chunks, const ChunkStats* stats, const RowState* states, KeptTokens kept) {
    const int row = static_cast<int>(blockIdx.y);
    if (kept.n_kept[row] > kept.max_kept) return;
    const RowState state = states[row];
    KeptToken* list = kept.list + static_cast<int64_t>(row) * kept.max_kept;
    for (int chunk = static_cast<int>(blockIdx.x); chunk < n_chunks; chunk += kRowBlocks) {
        const int index = row * n_chunks + chunk;
        if (!has_kept(rows, stats[index], state, kept.cut)) continue;
        list_chunk(rows, row, chunk, state, kept.cut, list + kept.offsets[index]);
    }
}

template <typename Reader>
__global__ void __launch_bounds__(kThreads) sum_rows(KeptTokens kept, Embedding embedding, float scale, float* soft) {
    const int column = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
    const int row = static_cast<int>(blockIdx.y), n = kept.n_kept[row];
    if (n > kept.max_kept || column >= embedding.hidden) return;
    const KeptToken* list = kept.list + static_cast<int64_t>(row) * kept.max_kept;
    float sum = 0;
#pragma unroll 4
    for (int i = 0; i < n; ++i) {
        sum += list[i].probability * Reader::value(embedding.rows + list[i].token * embedding.row_bytes, column);
    }
    soft[static_cast<int64_t>(row) * embedding.hidden + column] = sum * scale;
}

}  // namespace

bool has_conditioning(ggml_type type) {
    return with_reader(type, [](auto /*reader*/) {});
}

void count_kept(const LogitRows& rows, const ChunkStats* stats, const RowState* states, const KeptTokens& kept,
                const Stream& stream) {
    const int n_chunks = rows.n_chunks();
    launch(count_chunks, grid(kRowBlocks, rows.canvas), kThreads, stream, rows, n_chunks, stats, states, kept);
    launch(place_rows, grid(1, 1), kThreads, stream, rows.canvas, n_chunks, kept);
}

void sum_sparse_rows(const LogitRows& rows, const ChunkStats* stats, const RowState* states, const KeptTokens& kept,
                     const Embedding& embedding, float* soft, const Stream& stream) {
    const int n_chunks = rows.n_chunks();
    launch(list_chunks, grid(kRowBlocks, rows.canvas), kThreads, stream, rows, n_chunks, stats, states, kept);
    const dim3 blocks = grid((embedding.hidden + kThreads - 1) / kThreads, rows.canvas);
    const float scale = std::sqrt(static_cast<float>(embedding.hidden));
    with_reader(embedding.type, [&](auto reader) {
        launch(sum_rows<decltype(reader)>, blocks, kThreads, stream, kept, embedding, scale, soft);
    });
}

}  // namespace dgemma::cuda
