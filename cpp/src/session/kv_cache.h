// The key/value cache: full layers hold every position, sliding layers a ring of the last ones.
//
// A pass over n tokens writes its keys and values to positions n_past … n_past + n - 1 and attends to them there. The
// encoder then moves n_past on. The decoder does not: what its canvas wrote is scratch, and the next pass writes over
// it. The ring has room for both, ring = round_up(window - 1 + max(encoder chunk, canvas), 256), so that scratch never
// lands on a position that a later pass can still see: position p shares its cell with p + ring, and a pass that writes
// p + ring ≤ n_past + max(chunk, canvas) - 1 has p ≤ n_past - window, outside every window from n_past on.
#pragma once

#include <ggml.h>

#include <memory>
#include <vector>

#include "model/devices.h"
#include "model/model.h"

namespace dgemma {

struct KvShape {
    int n_ctx;           // positions that the caller may use
    int64_t full_cells;  // n_ctx rounded up to 256
    int64_t ring_cells;  // of sliding layers
    ggml_type type;
};

/// Attention kernels on GPUs want the number of keys in multiples of 256.
inline int64_t round_up_keys(int64_t n) { return (n + 255) / 256 * 256; }

KvShape kv_shape(const Hparams& h, int n_ctx, int n_batch, ggml_type type);

/// The sliding layers' keys and values of the last window - 1 positions before n_past. Full layers need no copy: their
/// positions before n_past stay where they are until something else is encoded there, which ends the snapshot.
struct RingSnapshot {
    const void* owner;
    int n_past;
    int64_t first;
    std::vector<std::vector<uint8_t>> layers;  // of sliding layers, as KvCache::read_positions gives them
    bool valid = true;

    uint64_t n_bytes() const;
};

class KvCache {
  public:
    struct Layer {
        ggml_tensor* k;  // [head_dim * kv_heads, cells]
        ggml_tensor* v;  // the same
    };

    /// `plan_only`: lays out the tensors without memory behind them, for measuring a graph.
    KvCache(const Model& model, const Devices& devices, const KvShape& shape, bool plan_only);

    const KvShape& shape() const { return shape_; }
    const Layer& layer(size_t i) const { return layers_[i]; }
    int n_past() const { return n_past_; }
    void add_memory(MemoryUse& use) const;

    /// First position that the rings of the sliding layers still hold, and the first that a query at n would see.
    int64_t oldest_held() const;
    int64_t oldest_needed(int n) const;
    bool ring_reaches(int n) const { return !has_sliding_ || n == 0 || oldest_needed(n) >= oldest_held(); }

    /// What the rings must hold to go on from n_past, copied to host memory.
    std::shared_ptr<const RingSnapshot> snapshot();
    /// Back to a snapshot of this cache. ContextError if positions before it were written over since.
    void restore(const RingSnapshot& snapshot);

    /// Keys and values of layer i at positions first … end - 1, in that order, [k rows, v rows]; n_past need not hold
    /// them.
    void read_positions(size_t i, int64_t first, int64_t end, uint8_t* out) const;
    void write_positions(size_t i, int64_t first, int64_t end, const uint8_t* data);
    size_t row_bytes(size_t i) const { return layers_[i].k->nb[1]; }
    /// Says that exactly the positions before n were written from outside, those from `first` on to the rings too.
    void adopt(int n, int64_t first);

    /// Says that a pass is about to write n positions after n_past.
    void begin_write(int n);
    /// Keeps the n positions just written.
    void commit(int n) { n_past_ += n; }
    /// Back to n positions after an encoding that ended half-way. What its rings overwrote may be gone: if so the
    /// cache is emptied.
    void abandon(int n);
    /// Forgets positions >= n. ContextError if the rings no longer hold all that a query at n would see.
    void truncate(int n);

  private:
    void allocate(ggml_context* context, ggml_backend_t backend, bool plan_only);

    int64_t window_;
    bool has_sliding_;
    std::vector<bool> sliding_;  // by layer
    KvShape shape_;
    std::vector<ContextPtr> contexts_;  // by device
    std::vector<BufferPtr> buffers_;
    std::vector<Layer> layers_;
    std::vector<std::pair<std::string, uint64_t>> memory_;
    int n_past_ = 0;
    int high_water_ = 0;  // positions below this were ever written
    int64_t floor_ = 0;   // positions before this never came into the rings (a restored or loaded cache)
    std::vector<std::weak_ptr<RingSnapshot>> snapshots_;
};

}  // namespace dgemma
