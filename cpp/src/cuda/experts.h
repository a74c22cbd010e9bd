// The mixture of experts on the card: n tokens, each through `used` of the experts, and the weighted sum of what they
// say.
//
// The twin that defines it is cuda/experts_twin.cpp: what graph/experts.cpp builds, with the rows before each product
// rounded to 8 bits as cpu/int8_rows.h does, or to BF16: both of the products' rows are one or the other
// (product_rows.h says where which is better). A token's k-th expert makes the *pair* token * used + k. One launch
// each:
//     choose_experts   [n / 8] blocks: softmax, the `used` largest probabilities, renormalised, times their scales
//     order_pairs      1 block: the pairs by expert, rising within one, and tiles of at most kTilePairs of them
//     round_groups     [n hidden / 256] blocks: the experts' input as 8-bit or BF16 rows
//     gate_up_tile     [ffn / 32, tiles] blocks: gelu(gate x) * (up x), straight to 8-bit rows, in that order
//     gate_up_bf16     [ffn / 64, tiles] blocks: the same of and to BF16 rows
//     down_tile        [hidden / 64, tiles] blocks: down times such a row, to the pair's own place
//     down_bf16        [hidden / 128, tiles] blocks: the same of BF16 rows
//     combine_vectors  [n hidden / 1024] blocks: each token's rows times their weights, in the order of its choices; a
//                      layer does this where it ends (layer_rows.h)
// The number of tiles is known on the card only, so the two products are launched for the most there can be and the
// rest of the blocks return at once: launches are the same from step to step. No sum depends on the order in which
// blocks finish, so every result is the same in every run.
// Bounds: used <= 32, used <= experts <= kMaxExperts, hidden a multiple of 64, ffn of 32, and each of the weight that
// it is the width of: of the block of its type. An expert's matrix has less than 2^31 bytes. Weights begin at a
// multiple of 16 bytes and may be read up to the next such multiple after their end.
#pragma once

#include <ggml.h>

#include <cstdint>

#include "cuda/product_rows.h"

namespace dgemma::cuda {

constexpr int kMaxExperts = 256;  // a thread each
constexpr int kMaxUsed = 32;      // a lane each
constexpr int kTilePairs = 32;    // pairs that a block multiplies weights by
constexpr int kWeightRows = 64;   // rows of a weight that it multiplies, or twice as many: of gate and up, half each

struct ExpertShape {
    int experts, used, hidden, ffn;

    /// The most tiles that n tokens can make.
    int most_tiles(int n) const {
        const int pairs = n * used;
        return (pairs < experts ? pairs : experts) + pairs / kTilePairs;
    }
};

/// One tensor of all experts, [experts, rows, row_bytes] on the card.
struct ExpertWeights {
    ggml_type type;
    const uint8_t* data;
    int64_t row_bytes, matrix_bytes;
};

/// Whether there are kernels for weights of this type.
bool has_expert_product(ggml_type type);

/// Each token's experts, the most probable first; of equals, the one of lower number.
struct Routes {
    int32_t* experts;  // [n, used]
    float* weights;    // [n, used]
};

/// At most kTilePairs neighbours in `pairs` that have the same expert.
struct Tile {
    int32_t expert, first, count;
};

struct PairOrder {
    int32_t* pairs;    // [n used]: by expert, rising within one
    Tile* tiles;       // [most_tiles(n)]: those of an expert follow each other
    int32_t* n_tiles;  // [1]
};

/// From the router's logits [n, experts] and the experts' own scales [experts].
void route_tokens(const ExpertShape& shape, int n, const float* logits, const float* expert_scale, const Routes& routes,
                  const Stream& stream);
void sort_pairs(const ExpertShape& shape, int n, const int32_t* experts, const PairOrder& order, const Stream& stream);

/// gated [n used, ffn], row i for the pair pairs[i], from rows [n, hidden] and weights [experts, 2 ffn, hidden], the
/// gate's rows first.
void multiply_gate_up(const ExpertShape& shape, int n, const ExpertWeights& weights, const PairOrder& order,
                      const ProductRows& rows, const ProductRows& gated, const Stream& stream);
/// products [n used, hidden], row i for pair i, from weights [experts, hidden, ffn].
void multiply_down(const ExpertShape& shape, int n, const ExpertWeights& weights, const PairOrder& order,
                   const ProductRows& gated, float* products, const Stream& stream);
/// sums [n, hidden] = the sum over k of weights[token, k] * products[token, k].
void combine_pairs(const ExpertShape& shape, int n, const float* weights, const float* products, float* sums,
                   const Stream& stream);

}  // namespace dgemma::cuda
