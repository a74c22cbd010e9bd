// The CUDA kernels (cpp/src/cuda/) one by one, from and to the host's memory: what tests compare with plain arithmetic,
// and gpu-check times. An engine uses none of this.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dgemma/dgemma.h"

namespace dgemma {

/// The vocabulary's side of one step as the CUDA kernels compute it (cpp/src/cuda/), from and to the host's memory: the
/// sampler with the random numbers of (seed, step, block), and then self-conditioning.
struct CardJob {
    const float* logits;  // [canvas, n_vocab], before the soft-cap
    const float* before;  // the same of the step before, or null
    int canvas, n_vocab;
    float soft_cap;  // 0: none
    double temperature, entropy_bound;
    uint64_t seed;
    uint32_t step, block;
    std::string type;             // of the embedding
    int64_t n_cols;               // of the embedding
    const void* embedding;        // [n_vocab, row_bytes(type, n_cols)]
    float dropped_mass;           // of each softmax, above 0
    int max_kept;                 // tokens that a row may keep and still be summed token by token
    float* soft;                  // [canvas, n_cols]
    std::vector<int32_t> tokens;  // whose rows are looked up; empty: those of the step's next canvas
    float* rows;                  // [tokens, n_cols]
    bool is_buffered;             // soft and rows go through the step's buffer, as where another device has the layers
};
struct CardJobResult {
    SamplerStep step;
    double mean_entropy;  // nats
    bool unchanged;       // every argmax is that of the step before
    int n_flat;           // rows that kept more than max_kept
    std::vector<int32_t> canvas_on_card;
};
/// RequestError outside the kernels' bounds; BackendError where cuda_unavailable() says why.
CardJobResult run_on_card(const CardJob& job);

/// One layer's mixture of experts, from and to the host's memory. A token's k-th expert is the pair token * n_used + k.
struct ExpertJob {
    int n_tokens, n_experts, n_used, hidden, ffn;
    const float* logits;        // [n_tokens, n_experts]: the router's
    const float* expert_scale;  // [n_experts]
    const float* x;             // [n_tokens, hidden]
    std::string gate_up_type, down_type;
    const void* gate_up;  // [n_experts, 2 ffn, row_bytes(gate_up_type, hidden)], the gate's rows first
    const void* down;     // [n_experts, hidden, row_bytes(down_type, ffn)]
    float* sums;          // [n_tokens, hidden]: of the experts' rows times their weights
    bool is_bf16;         // what both products multiply weights by: activations of 16 bits, not of 8
};
struct ExpertJobResult {
    std::vector<int32_t> experts;  // [n_tokens, n_used], the most probable first; of equals, the one of lower number
    std::vector<float> weights;    // [n_tokens, n_used]
    std::vector<int32_t> pairs;    // by expert, rising within one
    std::vector<int32_t> tiles;    // [tiles, 3]: expert, first in `pairs`, count
};
/// As the CUDA kernels compute it. RequestError outside their bounds; BackendError where they cannot run.
ExpertJobResult run_experts_on_card(const ExpertJob& job);
/// The kernels beside ggml's own graph of the same layer, on the first card.
struct ExpertTimes {
    std::string device;
    std::vector<double> ours, ggml;                                    // milliseconds a layer, of a few batches
    std::vector<std::pair<std::string, std::vector<double>>> kernels;  // the same of each of ours, alone
    double distance;                                                   // |ours - ggml's| / |ggml's|, of the sums
};
/// Batches of n_runs layers each, queued one after the other. BackendError without a card, or if it is too small.
ExpertTimes time_experts(const ExpertJob& job, int n_runs);

/// One mask of attention (cuda/masks.h): [padded, keys] F16.
struct MaskJob {
    int n_past, n, padded, keys, cells, window;
    bool is_causal;
};
/// As the CUDA kernel writes it. BackendError where it cannot run.
std::vector<uint16_t> run_mask_on_card(const MaskJob& job);

/// What follows the products of queries, keys and values, from and to the host's memory: norms, rotary positions,
/// cache.
struct HeadJob {
    int n, heads, kv_heads, head_dim;
    int64_t position;  // of the first token; it goes to cell position % n_cells
    int n_cells;
    float base, eps;
    std::vector<float> factors;  // of the frequencies, [head_dim / 2]; empty: 1
    float* q;                    // [n, heads, head_dim]: in and out
    const float *k, *v;          // [n, kv_heads, head_dim]
    const float *q_norm, *k_norm;
    uint16_t *keys, *values;  // F16 [n_cells, kv_heads, head_dim]: in and out
};
/// As the CUDA kernel computes it. RequestError outside its bounds; BackendError where it cannot run.
void run_heads_on_card(const HeadJob& job);
/// What the experts' kernels compute, in plain C++: activations rounded as theirs are, weights not, sums in double.
ExpertJobResult define_experts(const ExpertJob& job);

/// Products of dense weights and the same rows, from and to the host's memory.
struct DenseMatrix {
    std::string type;
    int rows;
    const void* data;  // [rows, row_bytes(type, k)]
};
struct DenseJob {
    int n, k;
    const float* x;                    // [n, k]
    std::vector<DenseMatrix> weights;  // where is_gated: gate and up
    bool is_gated;
    bool is_bf16;        // x is rounded to BF16, not to 8 bits
    bool gated_is_bf16;  // and so is what is_gated makes
    bool is_shared;      // the columns of the first of the weights are shared out, and its parts summed here
};
/// As the CUDA kernels compute them: [n, rows] of each of the weights, or the one gelu(gate x) * (up x) as the next
/// product takes it. RequestError outside the kernels' bounds; BackendError where they cannot run.
std::vector<std::vector<float>> run_dense_on_card(const DenseJob& job);

struct DenseTimes {
    std::string device;
    std::vector<double> ggml, int8, bf16;  // milliseconds for all of the products, of a few batches
    double int8_distance, bf16_distance;   // |ours - ggml's| / |ggml's|, of the first
};
/// By ggml and by our kernels in both kinds of rows, whichever the job names. BackendError without a card.
DenseTimes time_dense(const DenseJob& job, int n_runs);

/// One of the functions between a layer's products (cuda/layer_rows.h), from and to the host's memory.
struct LayerRowsJob {
    std::string function;  // its name
    int n, hidden, experts, used;
    float eps, scale;
    bool is_bf16;                                      // rows for products are of BF16, not of 8 bits
    std::map<std::string, std::vector<float>> inputs;  // by the function's names for them
};
struct LayerRowsResult {
    std::map<std::string, std::vector<float>> floats;   // rows, and d and d_sum of each group of "NAME_scales"
    std::map<std::string, std::vector<uint8_t>> bytes;  // values of rows for products
};
/// As the CUDA kernels compute it. RequestError outside their bounds; BackendError where they cannot run.
LayerRowsResult run_layer_rows_on_card(const LayerRowsJob& job);

}  // namespace dgemma
