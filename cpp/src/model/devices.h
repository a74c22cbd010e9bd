// ggml's devices as this engine uses them: any number of GPUs ("cards"), and the CPU always.
#pragma once

#include <ggml-backend.h>

#include <memory>
#include <string>
#include <vector>

#include "dgemma/dgemma.h"

namespace dgemma {

struct FreeBackend {
    void operator()(ggml_backend_t backend) const { ggml_backend_free(backend); }
};
struct FreeBuffer {
    void operator()(ggml_backend_buffer_t buffer) const { ggml_backend_buffer_free(buffer); }
};
struct FreeContext {
    void operator()(ggml_context* context) const { ggml_free(context); }
};
using BackendPtr = std::unique_ptr<ggml_backend, FreeBackend>;
using BufferPtr = std::unique_ptr<ggml_backend_buffer, FreeBuffer>;
using ContextPtr = std::unique_ptr<ggml_context, FreeContext>;

/// A ggml context for `n` tensors whose data lies elsewhere.
ContextPtr make_tensor_context(size_t n);

/// The device's name, "CPU" or "CUDA0".
std::string device_name(ggml_backend_t backend);

/// Devices by number: the cards in ggml's order, then the CPU. Begins with the CPU alone started.
class Devices {
  public:
    /// BackendError if ggml has no CPU device. `should_stop(data)` is polled by the CPU between the nodes of a graph.
    Devices(int n_threads, ggml_abort_callback should_stop, void* data);

    /// Cards and CPU.
    size_t count() const { return backends_.size(); }
    int cpu_index() const { return static_cast<int>(count()) - 1; }
    const std::vector<DeviceInfo>& info() const { return info_; }

    /// BackendError if the card cannot be started.
    void start(int card);

    ggml_backend_t cpu() const { return backends_.back().get(); }
    /// Null: a card that was not started.
    ggml_backend_t get(int device) const { return backends_[static_cast<size_t>(device)].get(); }
    /// The one whose memory holds a tensor.
    ggml_backend_t holding(const ggml_tensor* tensor) const;
    /// Those that are started, in the scheduler's order: the CPU last.
    std::vector<ggml_backend_t> started() const;

  private:
    std::vector<DeviceInfo> info_;
    std::vector<BackendPtr> backends_;
};

}  // namespace dgemma
