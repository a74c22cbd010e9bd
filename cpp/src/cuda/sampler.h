// The canvas sampler on the card: one read of the logits, then a chunk of each row once more.
//
// The twin that defines it is denoise/sampler.cpp: the same argmax, draw and acceptance except where two sums or two
// products differ in their rounding. One launch each of
//     summarise_chunks   [canvas, chunks] blocks: soft-cap, temperature, maximum, mass and weighted mass of a chunk
//     finish_rows        [canvas] blocks: those of the row, entropy, argmax; the draw, from one chunk read again
//     accept_positions   1 block: sorts the entropies, accepts, renoises, writes the next canvas
// Bounds: canvas <= kMaxCanvas, n_vocab <= kMaxChunks * kChunk, inverse_temperature finite and above 0.
#pragma once

#include <cstdint>

#include "cuda/card.h"
#include "cuda/logit_rows.h"
#include "denoise/philox.h"

namespace dgemma::cuda {

/// What goes back to the host, for one position and for the step.
struct PositionResult {
    int32_t argmax, sampled, next;
    float entropy;     // nats
    int32_t accepted;  // 0 or 1
};

struct StepSummary {
    double mean_entropy;  // nats
    int32_t first_nan;    // the first position whose logits are not numbers; canvas: none
    int32_t unchanged;    // 1 where every argmax is that of the step before
};

/// Fills stats [canvas, chunks] and states [canvas].
void summarise_rows(const LogitRows& rows, const StepSite& site, ChunkStats* stats, RowState* states,
                    const Stream& stream);

/// From the states: results [canvas], the summary, and `next_canvas` [canvas] int32. `argmax` [canvas] holds the step
/// before's and becomes this one's; -1 where there was none.
void accept_and_renoise(const LogitRows& rows, const StepSite& site, double entropy_bound, const RowState* states,
                        int32_t* argmax, int32_t* next_canvas, PositionResult* results, StepSummary* summary,
                        const Stream& stream);

}  // namespace dgemma::cuda
