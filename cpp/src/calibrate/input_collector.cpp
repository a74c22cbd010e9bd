#include "calibrate/input_collector.h"

#include <ggml-backend.h>

#include <utility>

namespace dgemma {
namespace {

/// The tensor's first byte in the host's memory: its own, or a copy in `memory`.
const uint8_t* on_host(const ggml_tensor* tensor, std::vector<uint8_t>& memory) {
    if (ggml_backend_buffer_is_host(tensor->buffer)) return static_cast<const uint8_t*>(tensor->data);
    memory.resize(ggml_nbytes(tensor));
    ggml_backend_tensor_get(tensor, memory.data(), 0, memory.size());
    return memory.data();
}

void add_squares(const uint8_t* row, int64_t n_cols, double* sums) {
    const auto* x = reinterpret_cast<const float*>(row);
    for (int64_t c = 0; c < n_cols; ++c) sums[c] += static_cast<double>(x[c]) * static_cast<double>(x[c]);
}

}  // namespace

bool InputCollector::wants(const ggml_tensor* node) {
    if (node->op != GGML_OP_MUL_MAT && node->op != GGML_OP_MUL_MAT_ID) return false;
    const ggml_backend_buffer_t buffer = node->src[0]->buffer;
    return buffer != nullptr && ggml_backend_buffer_get_usage(buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
}

void InputCollector::computed(const ggml_tensor* node) {
    InputSums& to = sums_for(node->src[0]);
    if (node->op == GGML_OP_MUL_MAT) {
        add_rows(node->src[1], to);
    } else {
        add_routed_rows(node->src[1], node->src[2], to);
    }
}

std::vector<InputSums> InputCollector::take() {
    std::vector<InputSums> all;
    all.reserve(sums_.size());
    for (auto& [name, sums] : sums_) all.push_back(std::move(sums));
    sums_.clear();
    return all;
}

InputSums& InputCollector::sums_for(const ggml_tensor* weight) {
    InputSums& sums = sums_[weight->name];
    if (sums.sums.empty()) {
        const int64_t n_cols = weight->ne[0], n_matrices = weight->ne[2];
        sums = {weight->name, n_cols, std::vector<double>(static_cast<size_t>(n_cols * n_matrices)),
                std::vector<int64_t>(static_cast<size_t>(n_matrices))};
    }
    return sums;
}

void InputCollector::add_rows(const ggml_tensor* input, InputSums& to) {
    const uint8_t* first = on_host(input, input_memory_);
    for (int64_t row = 0; row < input->ne[1]; ++row) add_squares(first + row * input->nb[1], to.n_cols, to.sums.data());
    to.rows[0] += input->ne[1];
}

/// input: [cols, 1 or used, n], experts: [used, n]. A row counts for each expert that it goes to.
void InputCollector::add_routed_rows(const ggml_tensor* input, const ggml_tensor* experts, InputSums& to) {
    const uint8_t* rows = on_host(input, input_memory_);
    const uint8_t* ids = on_host(experts, experts_memory_);
    for (int64_t token = 0; token < experts->ne[1]; ++token) {
        const auto* chosen = reinterpret_cast<const int32_t*>(ids + token * experts->nb[1]);
        for (int64_t k = 0; k < experts->ne[0]; ++k) {
            const uint8_t* row = rows + token * input->nb[2] + (k % input->ne[1]) * input->nb[1];
            add_squares(row, to.n_cols, to.sums.data() + chosen[k] * to.n_cols);
            ++to.rows[static_cast<size_t>(chosen[k])];
        }
    }
}

}  // namespace dgemma
