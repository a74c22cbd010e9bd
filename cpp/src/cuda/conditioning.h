// Self-conditioning on the card: soft [canvas, hidden] = softmax(z) times the embedding's rows times sqrt(hidden), from
// the raw logits of the step before and the embedding as it is stored.
//
// The twin that defines it is session/soft_embedding.cpp: probabilities below `cut` are left out. A row that keeps at
// most max_kept tokens is *sparse*: they are listed in the order of the vocabulary and summed in F32, in that order.
// The others are *flat*: both factors are rounded to BF16 and multiplied by the tensor cores, slab by slab of the
// vocabulary.
//     count_chunks        [8, canvas] blocks; reads only the chunks whose maximum passes the cut
//     place_rows          1 block: where each chunk's tokens go in its row's list; which rows are flat
//     list_chunks         [8, canvas] blocks; reads those chunks again
//     sum_rows            [hidden / 256, canvas] blocks
//     spread_slab, multiply_slab for each slab, then write_flat; only where a row is flat
// Every result is the same in every run: no sum depends on the order in which blocks finish.
// Bounds: those of the sampler; the embedding of a type in embedding_types.cuh; a row of it is a whole number of
// blocks.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "cuda/card.h"
#include "cuda/logit_rows.h"

namespace dgemma::cuda {

constexpr int kSlab = 4 * kChunk;                  // tokens that the flat rows are multiplied with at a time
constexpr int kTileRows = 128, kTileColumns = 64;  // of the result, by one block

struct Embedding {
    ggml_type type;
    const uint8_t* rows;  // [n_vocab, row_bytes] on the card, at an even address (F32: a multiple of 4)
    int64_t row_bytes;
    int hidden;
};

/// Whether there are kernels for an embedding of this type.
bool has_conditioning(ggml_type type);

struct KeptToken {
    int32_t token;
    float probability;
};

/// The tokens that carry each row's mass.
struct KeptTokens {
    float cut;
    int max_kept;        // that a sparse row has
    int32_t* offsets;    // [canvas, chunks]: where each chunk's tokens begin in its row's list
    int32_t* n_kept;     // [canvas]
    KeptToken* list;     // [canvas, max_kept]; flat rows have none
    int32_t* flat_rows;  // [canvas]: the flat rows, ascending
    int32_t* n_flat;     // [1]
};

/// Fills all but the list.
void count_kept(const LogitRows& rows, const ChunkStats* stats, const RowState* states, const KeptTokens& kept,
                const Stream& stream);

/// The sparse rows of soft [canvas, hidden], and their lists.
void sum_sparse_rows(const LogitRows& rows, const ChunkStats* stats, const RowState* states, const KeptTokens& kept,
                     const Embedding& embedding, float* soft, const Stream& stream);

/// What the flat rows need besides; undefined contents.
struct FlatScratch {
    uint16_t* probabilities;  // BF16 [canvas rounded up to kTileRows, kSlab]
    float* sums;              // [the same, hidden rounded up to kTileColumns]
};

/// The flat rows of soft.
void sum_flat_rows(const LogitRows& rows, const RowState* states, const KeptTokens& kept, const Embedding& embedding,
                   const FlatScratch& scratch, float* soft, const Stream& stream);

}  // namespace dgemma::cuda
