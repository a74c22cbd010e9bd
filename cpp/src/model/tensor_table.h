// convert/tensors.json, the one table of tensors, as the loader sees it.
#pragma once

#include <array>
#include <string>

#include "gguf/gguf_file.h"
#include "model/hparams.h"

namespace dgemma {

using Shape = std::array<int64_t, 4>;  // ggml's order, columns first; absent dimensions are 0 here

enum class LayerSet { kModel, kAll, kSliding };

struct TensorRule {
    const char* name;  // "blk.{i}.attn_q.weight"
    LayerSet layers;
    bool keep_f32;  // stored as F32 in every file
    Shape (*shape)(const Hparams& h, size_t layer);
};

/// The rule for a name with its {i} still in it. The name must be in the table.
const TensorRule& tensor_rule(const std::string& pattern);

/// The tensor that a rule names, in layer i where it is a layer's. FileError if it is missing, of another shape, or of
/// a type that ggml cannot multiply by.
const TensorData& claim_tensor(const GgufFile& file, const Hparams& h, const TensorRule& rule, size_t layer);

}  // namespace dgemma
