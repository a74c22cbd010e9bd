// The arithmetic of attention on one tile: 32 query rows by up to 128 keys, in BF16 products with F32 sums.
//
// A row is one query of one head; the rows that share a KV head share its tiles. Both products run over words that hold
// two BF16 values which lie one behind the other in the sum: of the head's width for the scores, of the keys for the
// values. The scores stand transposed, [key, row], so that the softmax of 16 rows runs down 16 lanes and what it leaves
// is already a factor of the second product.
#pragma once

#include <ggml.h>

#include <cstdint>

namespace dgemma {

constexpr int64_t kTileRows = 32, kTileKeys = 128, kTileDims = 32;

/// Whether this processor has these.
bool has_attention_tile();

/// n keys, at most kTileKeys, of `width` values, a multiple of kTileDims; `stride` values from key to key.
struct KeyRows {
    const ggml_fp16_t* data;
    int64_t stride, n, width;
};

/// To words [kTileKeys, width / 2]. Keys from n on are zero, up to the next multiple of 8.
void pack_keys(const KeyRows& keys, uint32_t* words);

/// To words [width / 32, kTileKeys / 2, 32]: in one word a column of two keys. The pair of a last odd key has a zero.
void pack_values(const KeyRows& values, uint32_t* words);

/// Queries of `width` values to words [width / 2, kTileRows]. The rows from n on are zero.
void pack_queries(const float* const* rows, int64_t n, int64_t width, uint32_t* words);

/// scores: [kTileKeys, kTileRows] F32, for n keys rounded up to a multiple of 8.
void score_tile(const uint32_t* keys, int64_t n, const uint32_t* queries, int64_t width, float* scores);

/// The softmax of 32 rows over the keys so far.
struct RunningSoftmax {
    float highest[kTileRows];  // score so far
    float total[kTileRows];    // of exp(score - highest)
    float kept[kTileRows];     // what the last tile left of what was summed before: exp(highest before - highest)
};

void start_softmax(RunningSoftmax& softmax);

/// Adds `mask` ([kTileRows, kTileKeys] F16; null: nothing) to the scores, and turns those of n keys, rounded up to an
/// even number, into weights: exp(score - highest) as BF16 words of two keys [kTileKeys / 2, kTileRows].
void weigh_tile(float* scores, int64_t n, const ggml_fp16_t* mask, RunningSoftmax& softmax, uint32_t* weights);

/// sums [kTileRows, width] = softmax.kept * sums + weights * values, over n keys.
void add_values(const uint32_t* weights, const RunningSoftmax& softmax, const uint32_t* values, int64_t n,
                int64_t width, float* sums);

}  // namespace dgemma
