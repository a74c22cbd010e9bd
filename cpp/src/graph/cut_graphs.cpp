#include "graph/cut_graphs.h"

#include <algorithm>
#include <string>

#include "graph/parts.h"

namespace dgemma {
namespace {

/// Nodes and leafs of the largest graph: what lies between the experts of two layers, with the head or the embedding.
constexpr size_t kMostNodes = 384;
constexpr size_t kAlignment = 256;  // no device of ggml's asks for more, so that a plan holds on all of them
constexpr size_t kGraphsPerLayer = 4, kGraphsOutside = 4;

size_t padded(size_t n, size_t alignment) { return (n + alignment - 1) / alignment * alignment; }

}  // namespace

CutGraphs::CutGraphs(ggml_backend_t card, OwnExperts& experts, int64_t hidden, int64_t n_experts)
    : card_(card),
      experts_(experts),
      hidden_(hidden),
      n_experts_(n_experts),
      allocator_(ggml_gallocr_new(ggml_backend_get_default_buffer_type(card))) {
    if (!allocator_) throw BackendError("ggml could not make an allocator");
}

size_t CutGraphs::most_graphs(size_t n_layers) { return kGraphsPerLayer * n_layers + kGraphsOutside; }

size_t CutGraphs::graph_bytes() { return ggml_graph_overhead_custom(kMostNodes, /*grads=*/false); }

void CutGraphs::begin(ggml_context* ctx, int64_t n, bool by_part) {
    context_ = ctx;
    by_part_ = by_part;
    left_.clear();
    pieces_.clear();
    current_ = nullptr;
    for (size_t i = 0; i < places_.size(); ++i) {
        const int64_t width = i == kLogits ? n_experts_ : hidden_;
        places_[i] = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, width, n);
    }
    end_part(places_[kRows], "experts");
}

ggml_cgraph* CutGraphs::current() {
    if (current_ == nullptr) {
        current_ = ggml_new_graph_custom(context_, kMostNodes, /*grads=*/false);
        pieces_.push_back({current_, -1});
    }
    return current_;
}

void CutGraphs::leave(ggml_tensor* node, Place place) {
    left_.emplace_back(node, place);
    ggml_build_forward_expand(current(), node);
}

void CutGraphs::end_graph(int layer) {
    pieces_.back().layer = layer;
    current_ = nullptr;
}

ggml_tensor* CutGraphs::cut_part(ggml_tensor* node, Place place) {
    if (!by_part_) return node;
    leave(node, place);
    end_graph(-1);
    return places_[place];
}

void CutGraphs::cut(size_t layer) { end_graph(static_cast<int>(layer)); }

/// Inputs that are read on this card, and the places.
std::vector<ggml_tensor*> CutGraphs::lasting(const std::vector<ggml_tensor*>& inputs) const {
    std::vector<ggml_tensor*> all = inputs;
    all.insert(all.end(), places_.begin(), places_.end());
    return all;
}

uint64_t CutGraphs::lasting_bytes(const std::vector<ggml_tensor*>& inputs) const {
    ggml_backend_buffer_type_t type = ggml_backend_get_default_buffer_type(card_);
    uint64_t n_bytes = 0;
    for (const ggml_tensor* tensor : lasting(inputs)) {
        n_bytes += padded(ggml_backend_buft_get_alloc_size(type, tensor), kAlignment);
    }
    return n_bytes;
}

void CutGraphs::place_lasting(ggml_backend_buffer_t buffer, const std::vector<ggml_tensor*>& inputs) const {
    ggml_tallocr addresses = ggml_tallocr_new(buffer);
    for (ggml_tensor* tensor : lasting(inputs)) ggml_tallocr_alloc(&addresses, tensor);
    for (const auto& [node, place] : left_) ggml_backend_tensor_alloc(buffer, node, places_[place]->data);
}

uint64_t CutGraphs::measure(const std::vector<ggml_tensor*>& inputs) {
    const uint64_t fixed = lasting_bytes(inputs);
    void* nowhere = reinterpret_cast<void*>(uintptr_t{1} << 20);
    const BufferPtr buffer(ggml_backend_cpu_buffer_from_ptr(nowhere, fixed));
    place_lasting(buffer.get(), inputs);
    size_t most = 0;
    for (const Piece& piece : pieces_) {
        size_t n_bytes = 0;
        ggml_gallocr_reserve_n_size(allocator_.get(), piece.graph, nullptr, nullptr, &n_bytes);
        most = std::max(most, n_bytes);
    }
    return fixed + most;
}

void CutGraphs::check_supported() const {
    ggml_backend_dev_t device = ggml_backend_get_device(card_);
    for (const Piece& piece : pieces_) {
        for (int i = 0; i < ggml_graph_n_nodes(piece.graph); ++i) {
            const ggml_tensor* node = ggml_graph_node(piece.graph, i);
            if (ggml_backend_dev_supports_op(device, node)) continue;
            throw BackendError(device_name(card_) + " cannot compute " + ggml_op_name(node->op) +
                               ", which our experts leave to it; card_experts \"ggml\" gives it to the CPU");
        }
    }
}

bool CutGraphs::reserve_graphs() {
    return std::all_of(pieces_.begin(), pieces_.end(),
                       [&](const Piece& piece) { return ggml_gallocr_reserve(allocator_.get(), piece.graph); });
}

bool CutGraphs::reserve(const std::vector<ggml_tensor*>& inputs) {
    buffer_.reset(ggml_backend_alloc_buffer(card_, lasting_bytes(inputs)));
    if (!buffer_) return false;
    place_lasting(buffer_.get(), inputs);
    return reserve_graphs();
}

bool CutGraphs::allocate(const std::vector<ggml_tensor*>& inputs) {
    place_lasting(buffer_.get(), inputs);
    // All of them first: memory that grows is another one, and what had an address in the old one would have lost it.
    return reserve_graphs() && std::all_of(pieces_.begin(), pieces_.end(), [&](const Piece& piece) {
               return ggml_gallocr_alloc_graph(allocator_.get(), piece.graph);
           });
}

ggml_status CutGraphs::start(NodeObserver* observer) {
    const auto show = [&](const ggml_tensor* node) {
        if (observer == nullptr || !observer->wants(node)) return;
        synchronize();
        observer->computed(node);
    };
    for (const Piece& piece : pieces_) {
        const ggml_status status = ggml_backend_graph_compute_async(card_, piece.graph);
        if (status != GGML_STATUS_SUCCESS) return status;
        show(ggml_graph_node(piece.graph, -1));
        if (piece.layer < 0) continue;
        experts_.queue(static_cast<size_t>(piece.layer), {places_[kLogits], places_[kRows]});
        show(places_[kRows]);
    }
    return GGML_STATUS_SUCCESS;
}

uint64_t CutGraphs::n_bytes() const {
    const uint64_t fixed = buffer_ ? ggml_backend_buffer_get_size(buffer_.get()) : 0;
    return fixed + ggml_gallocr_get_buffer_size(allocator_.get(), 0);
}

}  // namespace dgemma
