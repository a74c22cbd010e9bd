#include "graph/masks.h"

#include <algorithm>

namespace dgemma {
namespace {

constexpr ggml_fp16_t kSeen = 0x0000, kHidden = 0xFC00;  // 0 and -inf

/// Rows of which nothing is seen, and see(query, its row) for those that are no padding.
template <typename See>
std::vector<ggml_fp16_t> mask_rows(const PassShape& shape, int64_t keys, int64_t first, See see) {
    const int64_t end = std::min(first + kMaskRows, padded_queries(shape.n_tokens));
    std::vector<ggml_fp16_t> rows(static_cast<size_t>(keys * (end - first)), kHidden);
    for (int64_t q = first; q < std::min(end, shape.n_tokens); ++q) see(q, rows.data() + (q - first) * keys);
    return rows;
}

}  // namespace

PassShape pass_shape(Pass pass, int64_t n_past, int64_t n_tokens, const KvShape& kv) {
    const int64_t keys = round_up_keys(n_past + n_tokens);
    return {pass, n_tokens, std::min(keys, kv.full_cells), std::min(keys, kv.ring_cells)};
}

int64_t padded_queries(int64_t n_tokens) { return std::max<int64_t>(n_tokens, 64); }

std::vector<ggml_fp16_t> full_mask_rows(const PassShape& shape, int64_t n_past, int64_t first) {
    return mask_rows(shape, shape.full_keys, first, [&](int64_t q, ggml_fp16_t* row) {
        std::fill_n(row, n_past + (shape.pass == Pass::kEncoder ? q + 1 : shape.n_tokens), kSeen);
    });
}

std::vector<ggml_fp16_t> ring_mask_rows(const PassShape& shape, int64_t n_past, int64_t first, int64_t window,
                                        int64_t ring_cells) {
    return mask_rows(shape, shape.ring_keys, first, [&](int64_t q, ggml_fp16_t* row) {
        // Encoder: itself and window - 1 positions before. Decoder: the last window - 1 cached positions and the whole
        // canvas, the same for every query (the reference has no window inside the canvas).
        const bool encoder = shape.pass == Pass::kEncoder;
        const int64_t oldest = std::max<int64_t>(0, (encoder ? n_past + q : n_past) - (window - 1));
        const int64_t end = encoder ? n_past + q + 1 : n_past + shape.n_tokens;
        for (int64_t p = oldest; p < end; ++p) row[p % ring_cells] = kSeen;
    });
}

}  // namespace dgemma
