#include "graph/masks.h"

#include <algorithm>

namespace dgemma {
namespace {

constexpr ggml_fp16_t kSeen = 0x0000, kHidden = 0xFC00;  // 0 and -inf

std::vector<ggml_fp16_t> hidden_mask(int64_t keys, int64_t n_tokens) {
    return std::vector<ggml_fp16_t>(static_cast<size_t>(keys * padded_queries(n_tokens)), kHidden);
}

}  // namespace

PassShape pass_shape(Pass pass, int64_t n_past, int64_t n_tokens, const KvShape& kv) {
    const int64_t keys = round_up_keys(n_past + n_tokens);
    return {pass, n_tokens, std::min(keys, kv.full_cells), std::min(keys, kv.ring_cells)};
}

int64_t padded_queries(int64_t n_tokens) { return std::max<int64_t>(n_tokens, 64); }

std::vector<ggml_fp16_t> full_mask(const PassShape& shape, int64_t n_past) {
    std::vector<ggml_fp16_t> mask = hidden_mask(shape.full_keys, shape.n_tokens);
    for (int64_t q = 0; q < shape.n_tokens; ++q) {
        const int64_t seen = n_past + (shape.pass == Pass::kEncoder ? q + 1 : shape.n_tokens);
        std::fill_n(mask.begin() + q * shape.full_keys, seen, kSeen);
    }
    return mask;
}

std::vector<ggml_fp16_t> ring_mask(const PassShape& shape, int64_t n_past, int64_t window, int64_t ring_cells) {
    std::vector<ggml_fp16_t> mask = hidden_mask(shape.ring_keys, shape.n_tokens);
    for (int64_t q = 0; q < shape.n_tokens; ++q) {
        // Encoder: itself and window - 1 positions before. Decoder: the last window - 1 cached positions and the whole
        // canvas, the same for every query (the reference has no window inside the canvas).
        const bool encoder = shape.pass == Pass::kEncoder;
        const int64_t first = std::max<int64_t>(0, (encoder ? n_past + q : n_past) - (window - 1));
        const int64_t end = encoder ? n_past + q + 1 : n_past + shape.n_tokens;
        for (int64_t p = first; p < end; ++p) mask[static_cast<size_t>(q * shape.ring_keys + p % ring_cells)] = kSeen;
    }
    return mask;
}

}  // namespace dgemma
