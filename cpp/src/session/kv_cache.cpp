#include "session/kv_cache.h"

#include <algorithm>

namespace dgemma {
namespace {

// Where the tensors of a plan pretend to lie: never read or written.
void* plan_address() { return reinterpret_cast<void*>(uintptr_t{1} << 20); }

}  // namespace

KvShape kv_shape(const Hparams& h, int n_ctx, int n_batch, ggml_type type) {
    const int64_t full = round_up_keys(n_ctx);
    const int64_t ring = round_up_keys(h.window - 1 + std::max<int64_t>(n_batch, h.canvas));
    return {n_ctx, full, std::min(ring, full), type};
}

KvCache::KvCache(const Model& model, const Devices& devices, const KvShape& shape, bool plan_only)
    : window_(model.hparams().window), has_sliding_(model.hparams().has_sliding()), shape_(shape) {
    const Hparams& h = model.hparams();
    for (size_t i = 0; i < devices.count(); ++i) contexts_.push_back(make_tensor_context(2 * h.layers.size()));
    for (size_t i = 0; i < h.layers.size(); ++i) {
        const LayerHparams& layer = h.layers[i];
        ggml_context* context = contexts_[static_cast<size_t>(model.weights().layers[i].device)].get();
        const int64_t cells = layer.sliding ? shape.ring_cells : shape.full_cells;
        const int64_t row = layer.head_dim * layer.kv_heads;
        sliding_.push_back(layer.sliding);
        layers_.push_back(
            {ggml_new_tensor_2d(context, shape.type, row, cells), ggml_new_tensor_2d(context, shape.type, row, cells)});
    }
    for (size_t i = 0; i < devices.count(); ++i) {
        allocate(contexts_[i].get(), devices.get(static_cast<int>(i)), plan_only);
    }
}

void KvCache::allocate(ggml_context* context, ggml_backend_t backend, bool plan_only) {
    if (ggml_get_first_tensor(context) == nullptr) return;
    ggml_backend_buffer_type_t type = ggml_backend_get_default_buffer_type(backend);
    const size_t size = ggml_backend_alloc_ctx_tensors_from_buft_size(context, type);
    memory_.emplace_back(device_name(backend), size);
    if (!plan_only) {
        buffers_.emplace_back(ggml_backend_alloc_ctx_tensors(context, backend));
        if (!buffers_.back()) {
            throw BackendError(device_name(backend) + ": not enough memory for the key/value cache (" +
                               std::to_string(size >> 20) + " MiB); a smaller n_ctx needs less");
        }
        ggml_backend_buffer_clear(buffers_.back().get(), 0);  // masked cells are still multiplied: no NaN may lie there
        return;
    }
    buffers_.emplace_back(ggml_backend_cpu_buffer_from_ptr(plan_address(), size));
    ggml_tallocr allocator = ggml_tallocr_new(buffers_.back().get());
    for (ggml_tensor* t = ggml_get_first_tensor(context); t != nullptr; t = ggml_get_next_tensor(context, t)) {
        ggml_tallocr_alloc(&allocator, t);
    }
}

void KvCache::add_memory(MemoryUse& use) const {
    for (const auto& [device, size] : memory_) use[device]["kv"] += size;
}

void KvCache::begin_write(int n) {
    for (const std::weak_ptr<RingSnapshot>& weak : snapshots_) {
        const std::shared_ptr<RingSnapshot> snapshot = weak.lock();
        if (snapshot && snapshot->n_past > n_past_) snapshot->valid = false;
    }
    high_water_ = std::max(high_water_, n_past_ + n);
}

int64_t KvCache::oldest_held() const { return std::max<int64_t>(floor_, high_water_ - shape_.ring_cells); }

int64_t KvCache::oldest_needed(int n) const { return std::max<int64_t>(0, n - (window_ - 1)); }

void KvCache::abandon(int n) {
    try {
        truncate(n);
    } catch (const ContextError&) {
        truncate(0);
    }
}

void KvCache::truncate(int n) {
    if (n < 0 || n > n_past_) {
        throw ContextError("truncate: " + std::to_string(n) + " is not between 0 and the " + std::to_string(n_past_) +
                           " positions in the cache");
    }
    if (!ring_reaches(n)) {
        throw ContextError("truncate: the ring of the sliding layers holds positions from " +
                           std::to_string(oldest_held()) + " on, and going back to " + std::to_string(n) + " needs " +
                           std::to_string(oldest_needed(n)) + "; encode the conversation again in a new session");
    }
    n_past_ = n;
    if (n == 0) adopt(0, 0);
}

}  // namespace dgemma
