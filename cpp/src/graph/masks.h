// Which cells of the cache a query sees, as the F16 masks of ggml's attention.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <vector>

#include "model/hparams.h"
#include "session/kv_cache.h"

namespace dgemma {

enum class Pass { kEncoder, kDecoder };

/// One pass over n_tokens tokens at positions n_past, n_past + 1, ….
struct PassShape {
    Pass pass;
    int64_t n_tokens;
    int64_t full_keys;  // cells of a full layer that take part: n_past + n_tokens rounded up to 256
    int64_t ring_keys;  // the same for sliding layers, at most the ring

    bool operator==(const PassShape& other) const {
        return pass == other.pass && n_tokens == other.n_tokens && full_keys == other.full_keys &&
               ring_keys == other.ring_keys;
    }
};

PassShape pass_shape(Pass pass, int64_t n_past, int64_t n_tokens, const KvShape& kv);

/// Rows of the queries that attention is given: at least 64 (see graph/attention.cpp).
int64_t padded_queries(int64_t n_tokens);

constexpr int64_t kMaskRows =
    16;  // made at a time: a whole mask of a long context would be megabytes beside the graph's

/// Rows first … first + kMaskRows - 1 of a mask [keys, padded_queries(n_tokens)], as far as it has them: 0 where the
/// query sees the cell and -inf elsewhere; padding rows are all -inf.
std::vector<ggml_fp16_t> full_mask_rows(const PassShape& shape, int64_t n_past, int64_t first);
std::vector<ggml_fp16_t> ring_mask_rows(const PassShape& shape, int64_t n_past, int64_t first, int64_t window,
                                        int64_t ring_cells);

}  // namespace dgemma
