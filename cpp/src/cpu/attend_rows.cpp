// One attention outside of any graph: what the tests compare with plain arithmetic.
#include <vector>

#include "cpu/attention.h"
#include "dgemma/dgemma.h"
#include "support/thread_pool.h"

namespace dgemma {
namespace {

std::vector<ggml_fp16_t> to_halves(const float* values, int64_t n) {
    std::vector<ggml_fp16_t> halves(static_cast<size_t>(n));
    ggml_fp32_to_fp16_row(values, halves.data(), n);
    return halves;
}

}  // namespace

bool has_own_attention() { return has_cpu_attention(256, GGML_TYPE_F16); }

void attend_rows(const RowAttention& rows) {
    if (!has_own_attention()) throw RequestError("there is no attention of ours for this processor");
    if (!has_cpu_attention(rows.head_dim, GGML_TYPE_F16)) {
        throw RequestError("a head's width must be a multiple of 32");
    }
    if (rows.kv_heads < 1 || rows.heads % rows.kv_heads != 0) {
        throw RequestError("the heads must be a multiple of the KV heads");
    }
    const int64_t stride = rows.kv_heads * rows.head_dim;
    const auto k = to_halves(rows.k, rows.keys * stride), v = to_halves(rows.v, rows.keys * stride);
    const auto mask = to_halves(rows.mask, rows.n * rows.keys);
    const AttentionOperands operands{rows.head_dim, rows.heads, rows.kv_heads, rows.n,        rows.keys,   rows.q,
                                     k.data(),      v.data(),   stride,        rows.head_dim, mask.data(), rows.result};
    ThreadPool pool(rows.n_threads);
    Pieces pieces;
    pool.run(rows.n_threads, [&](int) { attend(operands, rows.n_threads, pieces); });
}

}  // namespace dgemma
