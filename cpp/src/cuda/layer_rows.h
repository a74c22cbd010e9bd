// What lies between the products of a transformer layer: norms, residuals and the router.
#pragma once

#include "cuda/product_rows.h"

namespace dgemma::cuda {

// Rows are F32, [n, hidden] without gaps, and weights [hidden], all on the card and 16-byte aligned; n is
// 1 … kMaxPassRows.
// rms(x) is x / sqrt(mean(x^2) + eps) of each row. A row depends on no other, and its bits on nothing but itself.

constexpr int kMostHidden = 8192;
constexpr int kMostRouted = 256;  // experts

/// Whether the functions below take rows of this width: a multiple of 32, at most kMostHidden.
bool fits_rows(int hidden);

/// rows = rms(x) * weight.
void norm_rows(const float* x, const float* weight, float eps, const ProductRows& rows, int n, int hidden,
               const Stream& stream);

/// A decoder pass begins: residual = rms(embedded + soft) without a weight; next = rms(residual) * next_norm.
void begin_decoder(const float* embedded, const SharedSums& soft, const float* next_norm, float eps, float* residual,
                   const ProductRows& next, int n, int hidden, const Stream& stream);

struct AfterAttention {
    const float* x;  // rows, which may be `residual` itself
    SharedSums attention;
    const float *post_norm, *router_scale, *dense_norm, *expert_norm;
    float *residual, *router_rows;
    ProductRows dense, experts;
};
/// The end of attention: residual = x + rms(attention) * post_norm, and what reads it:
/// router_rows = rms(residual) * router_scale / sqrt(hidden), dense = rms(residual) * dense_norm and
/// experts = rms(residual) * expert_norm.
void end_attention(const AfterAttention& a, float eps, int n, int hidden, const Stream& stream);

/// What the router says of each expert: logits [n, experts] = rows [n, hidden] times router [experts, hidden]. Products
/// and sums are F32: the tensor cores' shorter ones would choose other experts. experts: 1 … kMostRouted.
void multiply_router(const float* router, const float* rows, float* logits, int n, int experts, int hidden,
                     const Stream& stream);

struct AfterExperts {
    SharedSums dense;       // what the dense feed-forward network made
    const float* products;  // [n * used, hidden]: the chosen experts' rows
    const float* weights;   // [n, used]
    const float *dense_norm, *expert_norm, *ffn_norm, *next_norm;
    int used;
    float scale;
    float* residual;  // rows: in and out
    ProductRows next;
};
/// The end of a layer: moe = sum over k < used of weights[token, k] * products[token * used + k], in the order of k;
/// ffn = rms(dense) * dense_norm + rms(moe) * expert_norm; residual = (residual + rms(ffn) * ffn_norm) * scale;
/// next = rms(residual) * next_norm.
void end_layer(const AfterExperts& a, float eps, int n, int hidden, const Stream& stream);

}  // namespace dgemma::cuda
