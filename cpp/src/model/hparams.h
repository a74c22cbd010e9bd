// The network's numbers, read from a GGUF's metadata and checked. Nothing about the 26B is assumed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dgemma/dgemma.h"
#include "gguf/gguf_file.h"

namespace dgemma {

struct LayerHparams {
    bool sliding;      // sees a window; false: full attention
    int64_t kv_heads;  // key/value heads
    int64_t head_dim;  // of queries, keys and values
    int rope_dims;     // dimensions that rotate
    float rope_base;   // θ
};

struct Hparams {
    int64_t vocab, hidden, ffn, heads, experts, experts_used, expert_ffn;
    int64_t rope_pairs;  // length of rope_freqs.weight: half the head dimension of the full layers
    int64_t window;      // a sliding layer sees itself and window - 1 positions before
    int64_t context, canvas;
    float rms_eps, logit_softcap;
    std::vector<LayerHparams> layers;
    std::vector<int32_t> eos_ids;

    bool has_sliding() const;
};

/// FileError if the file is of another architecture, or a key is missing, mistyped or out of range.
Hparams read_hparams(const GgufFile& file);

}  // namespace dgemma
