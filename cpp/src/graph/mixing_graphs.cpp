#include "graph/mixing_graphs.h"

#include <algorithm>
#include <string>

namespace dgemma {
namespace {

constexpr size_t kMostNodes = 16;   // nodes and leafs of one
constexpr size_t kAlignment = 256;  // no device of ggml's asks for more, so that a plan holds on all of them

size_t padded(size_t n, size_t alignment) { return (n + alignment - 1) / alignment * alignment; }

float* values(const ggml_tensor* tensor) { return tensor == nullptr ? nullptr : static_cast<float*>(tensor->data); }

}  // namespace

MixingGraphs::MixingGraphs(ggml_backend_t card, OwnLayers& layers, const Hparams& h)
    : card_(card), layers_(layers), h_(h), allocator_(ggml_gallocr_new(ggml_backend_get_default_buffer_type(card))) {
    if (!allocator_) throw BackendError("ggml could not make an allocator");
}

size_t MixingGraphs::graph_bytes() { return ggml_graph_overhead_custom(kMostNodes, /*grads=*/false); }

void MixingGraphs::begin(ggml_context* ctx, const PassShape& shape, const TokenInputs& tokens,
                         const LayerInputs& layers, ggml_tensor* logits) {
    context_ = ctx;
    shape_ = shape;
    tokens_ = tokens;
    full_mask_ = layers.full_mask;
    ring_mask_ = layers.ring_mask;
    logits_ = logits;
    placed_.clear();
    graphs_.clear();
    int64_t widest = 0;
    for (const LayerHparams& layer : h_.layers) widest = std::max(widest, layer.head_dim * h_.heads);
    for (ggml_tensor*& place : places_) {
        place = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, widest, padded_queries(shape.n_tokens));
    }
}

ggml_tensor* MixingGraphs::queries() {
    const int64_t head_dim = h_.layers[graphs_.size()].head_dim;
    ggml_tensor* q = ggml_new_tensor_3d(context_, GGML_TYPE_F32, head_dim, h_.heads, padded_queries(shape_.n_tokens));
    placed_.emplace_back(q, kQueries);
    return q;
}

void MixingGraphs::add_graph(ggml_tensor* mixing) {
    placed_.emplace_back(mixing, kAttention);
    graphs_.push_back(ggml_new_graph_custom(context_, kMostNodes, /*grads=*/false));
    ggml_build_forward_expand(graphs_.back(), mixing);
}

std::vector<ggml_tensor*> MixingGraphs::lasting() const {
    // The masks last: they grow with the context, and ggml-cuda records anew the graphs whose tensors have moved.
    std::vector<ggml_tensor*> all{tokens_.rows, places_[kQueries], places_[kAttention], ring_mask_, full_mask_};
    if (tokens_.soft != nullptr) all.insert(all.begin(), tokens_.soft);
    return all;
}

uint64_t MixingGraphs::lasting_bytes() const {
    ggml_backend_buffer_type_t type = ggml_backend_get_default_buffer_type(card_);
    uint64_t n_bytes = 0;
    for (const ggml_tensor* tensor : lasting()) {
        n_bytes += padded(ggml_backend_buft_get_alloc_size(type, tensor), kAlignment);
    }
    return n_bytes;
}

void MixingGraphs::place_lasting(ggml_backend_buffer_t buffer) const {
    ggml_tallocr addresses = ggml_tallocr_new(buffer);
    for (ggml_tensor* tensor : lasting()) ggml_tallocr_alloc(&addresses, tensor);
    for (const auto& [tensor, place] : placed_) ggml_backend_tensor_alloc(buffer, tensor, places_[place]->data);
}

uint64_t MixingGraphs::measure() {
    const uint64_t fixed = lasting_bytes();
    void* nowhere = reinterpret_cast<void*>(uintptr_t{1} << 20);
    const BufferPtr buffer(ggml_backend_cpu_buffer_from_ptr(nowhere, fixed));
    place_lasting(buffer.get());
    size_t most = 0;
    for (ggml_cgraph* graph : graphs_) {
        size_t n_bytes = 0;
        ggml_gallocr_reserve_n_size(allocator_.get(), graph, nullptr, nullptr, &n_bytes);
        most = std::max(most, n_bytes);
    }
    return fixed + most;
}

void MixingGraphs::check_supported() const {
    ggml_backend_dev_t device = ggml_backend_get_device(card_);
    for (ggml_cgraph* graph : graphs_) {
        for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
            const ggml_tensor* node = ggml_graph_node(graph, i);
            if (ggml_backend_dev_supports_op(device, node)) continue;
            throw BackendError(device_name(card_) + " cannot compute " + ggml_op_name(node->op) +
                               ", which our layers leave to it; card_layers \"ggml\" gives it to the CPU");
        }
    }
}

bool MixingGraphs::reserve_graphs() {
    return std::all_of(graphs_.begin(), graphs_.end(),
                       [&](ggml_cgraph* graph) { return ggml_gallocr_reserve(allocator_.get(), graph); });
}

bool MixingGraphs::reserve() {
    buffer_.reset(ggml_backend_alloc_buffer(card_, lasting_bytes()));
    if (!buffer_) return false;
    place_lasting(buffer_.get());
    return reserve_graphs();
}

bool MixingGraphs::allocate() {
    place_lasting(buffer_.get());
    // All of them first: memory that grows is another one, and what had an address in the old one would have lost it.
    return reserve_graphs() && std::all_of(graphs_.begin(), graphs_.end(), [&](ggml_cgraph* graph) {
               return ggml_gallocr_alloc_graph(allocator_.get(), graph);
           });
}

OwnPass MixingGraphs::own_pass(int64_t n_past, NodeObserver* observer) const {
    OwnPass pass{shape_,
                 n_past,
                 static_cast<uint16_t*>(full_mask_->data),
                 static_cast<uint16_t*>(ring_mask_->data),
                 values(tokens_.rows),
                 values(tokens_.soft),
                 values(places_[kQueries]),
                 values(places_[kAttention]),
                 values(logits_),
                 {}};
    if (observer != nullptr) pass.ended = [observer](const char* part) { observer->part_ended(part); };
    return pass;
}

ggml_status MixingGraphs::start(int64_t n_past, NodeObserver* observer) {
    const OwnPass pass = own_pass(n_past, observer);
    layers_.begin(pass);
    for (size_t i = 0; i < graphs_.size(); ++i) {
        const ggml_status status = ggml_backend_graph_compute_async(card_, graphs_[i]);
        if (status != GGML_STATUS_SUCCESS) return status;
        layers_.go_on(pass, i);
    }
    return GGML_STATUS_SUCCESS;
}

uint64_t MixingGraphs::n_bytes() const {
    const uint64_t fixed = buffer_ ? ggml_backend_buffer_get_size(buffer_.get()) : 0;
    return fixed + ggml_gallocr_get_buffer_size(allocator_.get(), 0);
}

}  // namespace dgemma
