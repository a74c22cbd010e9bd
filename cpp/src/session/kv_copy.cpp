// Keys and values in and out of the cache: snapshots, and what a saved session holds.
#include <algorithm>

#include "session/kv_cache.h"

namespace dgemma {
namespace {

/// Calls copy(cell, count, done) for each run of neighbouring cells that positions first … end - 1 lie in.
template <typename Copy>
void for_each_run(int64_t first, int64_t end, int64_t cells, const Copy& copy) {
    for (int64_t p = first; p < end;) {
        const int64_t cell = p % cells, count = std::min(end - p, cells - cell);
        copy(cell, count, p - first);
        p += count;
    }
}

}  // namespace

uint64_t RingSnapshot::n_bytes() const {
    uint64_t total = 0;
    for (const std::vector<uint8_t>& layer : layers) total += layer.size();
    return total;
}

void KvCache::read_positions(size_t i, int64_t first, int64_t end, uint8_t* out) const {
    const size_t row = row_bytes(i);
    for (const ggml_tensor* tensor : {layers_[i].k, layers_[i].v}) {
        for_each_run(first, end, tensor->ne[1], [&](int64_t cell, int64_t count, int64_t done) {
            ggml_backend_tensor_get(tensor, out + static_cast<size_t>(done) * row, static_cast<size_t>(cell) * row,
                                    static_cast<size_t>(count) * row);
        });
        out += static_cast<size_t>(end - first) * row;
    }
}

void KvCache::write_positions(size_t i, int64_t first, int64_t end, const uint8_t* data) {
    const size_t row = row_bytes(i);
    for (ggml_tensor* tensor : {layers_[i].k, layers_[i].v}) {
        for_each_run(first, end, tensor->ne[1], [&](int64_t cell, int64_t count, int64_t done) {
            ggml_backend_tensor_set(tensor, data + static_cast<size_t>(done) * row, static_cast<size_t>(cell) * row,
                                    static_cast<size_t>(count) * row);
        });
        data += static_cast<size_t>(end - first) * row;
    }
}

void KvCache::adopt(int n, int64_t first) {
    n_past_ = n;
    high_water_ = n;
    floor_ = first;
}

std::shared_ptr<const RingSnapshot> KvCache::snapshot() {
    auto snapshot = std::make_shared<RingSnapshot>();
    snapshot->owner = this;
    snapshot->n_past = n_past_;
    snapshot->first = std::max(oldest_needed(n_past_), oldest_held());
    for (size_t i = 0; i < layers_.size(); ++i) {
        if (!sliding_[i]) continue;
        snapshot->layers.emplace_back(2 * row_bytes(i) * static_cast<size_t>(n_past_ - snapshot->first));
        read_positions(i, snapshot->first, n_past_, snapshot->layers.back().data());
    }
    snapshots_.erase(std::remove_if(snapshots_.begin(), snapshots_.end(), [](const auto& s) { return s.expired(); }),
                     snapshots_.end());
    snapshots_.push_back(snapshot);
    return snapshot;
}

void KvCache::restore(const RingSnapshot& snapshot) {
    if (snapshot.owner != this) throw ContextError("restore: the snapshot is another session's");
    if (!snapshot.valid) {
        throw ContextError("restore: positions before " + std::to_string(snapshot.n_past) +
                           " were encoded anew since the snapshot was taken");
    }
    if (snapshot.n_past <= n_past_ && ring_reaches(snapshot.n_past)) {
        return truncate(snapshot.n_past);  // nothing was lost yet
    }
    size_t next = 0;
    for (size_t i = 0; i < layers_.size(); ++i) {
        if (sliding_[i]) write_positions(i, snapshot.first, snapshot.n_past, snapshot.layers[next++].data());
    }
    adopt(snapshot.n_past, snapshot.first);
}

}  // namespace dgemma
