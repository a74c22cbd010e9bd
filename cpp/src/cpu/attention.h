// Attention over the cache as a node of a ggml graph, on CPUs that multiply BF16.
//
// ggml's attention takes head by head and multiplies in F32. Here the queries of all heads that share a KV
// head meet a tile of keys and values that was rounded to BF16 once for all of them, and tiles that the mask hides are
// passed over. Queries, keys, values and the softmax's weights are rounded to BF16 (relative 2^-9 each); scores,
// softmax and all sums are F32. A query's result does not depend on the queries beside it or on the number of threads.
#pragma once

#include <ggml.h>

#include "cpu/pieces.h"

namespace dgemma {

/// Whether this processor can, for heads of this width over a cache of this type: F16 only, for one of F32 was asked
/// for because of its bits.
bool has_cpu_attention(int64_t head_dim, ggml_type cache);

/// softmax(k q + mask) v, [head_dim, heads, n] F32. q: [head_dim, heads, n] F32, contiguous; k, v: [head_dim, keys,
/// kv_heads] F16, heads a multiple of kv_heads; mask: [keys, at least n] F16, for all heads. 0 where the mask
/// hides every key.
ggml_tensor* build_cpu_attention(ggml_context* ctx, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                                 Pieces& pieces);

/// The same outside of any graph; the part of thread `ith` of `nth`.
struct AttentionOperands {
    int64_t head_dim, heads, kv_heads, n, keys;
    const float* q;                   // [n, heads, head_dim]
    const ggml_fp16_t *k, *v;         // head_dim values for each key and head
    int64_t key_stride, head_stride;  // in values, of k and of v
    const ggml_fp16_t* mask;          // [n, keys]
    float* out;                       // [n, heads, head_dim]
};
void attend(const AttentionOperands& a, int nth, Pieces& pieces);

/// Bytes that attend() takes until it returns, all threads together; of the operands only their sizes count.
uint64_t attend_bytes(const AttentionOperands& a, int nth);

}  // namespace dgemma
