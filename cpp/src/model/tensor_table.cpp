#include "model/tensor_table.h"

#include <stdexcept>

namespace dgemma {
namespace {

const TensorRule kTensorTable[] = {
#include "tensor_table.inc"
};

std::string shape_text(const int64_t* ne) {
    std::string text;
    int n = 4;
    while (n > 1 && ne[n - 1] == 1) --n;
    for (int d = 0; d < n; ++d) text += (d == 0 ? "[" : ", ") + std::to_string(ne[d]);
    return text + "]";
}

/// Q8_1 and Q8_K are ggml's own types for activations; integers and F64 have no product.
bool can_multiply(ggml_type type) {
    if (type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16) return true;
    return ggml_is_quantized(type) && type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K;
}

}  // namespace

const TensorRule& tensor_rule(const std::string& pattern) {
    for (const TensorRule& rule : kTensorTable) {
        if (pattern == rule.name) return rule;
    }
    throw std::logic_error("no such tensor in convert/tensors.json: " + pattern);
}

const TensorData& claim_tensor(const GgufFile& file, const Hparams& h, const TensorRule& rule, size_t layer) {
    std::string name = rule.name;
    if (rule.layers != LayerSet::kModel) name.replace(name.find("{i}"), 3, std::to_string(layer));
    const TensorData* tensor = file.find(name);
    if (tensor == nullptr) {
        file.fail("tensor " + name + " is missing; the file is incomplete or was made by another converter");
    }
    Shape expected = rule.shape(h, layer);
    for (int64_t& size : expected) size = size == 0 ? 1 : size;
    if (!std::equal(expected.begin(), expected.end(), tensor->ne)) {
        file.fail("tensor " + name + " has the shape " + shape_text(tensor->ne) + ", the metadata asks for " +
                  shape_text(expected.data()));
    }
    if (rule.keep_f32 ? tensor->type != GGML_TYPE_F32 : !can_multiply(tensor->type)) {
        file.fail("tensor " + name + " has the type " + ggml_type_name(tensor->type) +
                  (rule.keep_f32 ? ", it must be f32" : ", which ggml cannot multiply by"));
    }
    return *tensor;
}

}  // namespace dgemma
