// ggml's devices as this engine uses them: the CPU always, one GPU where there is one and layers go to it.
#pragma once

#include <ggml-backend.h>

#include <memory>
#include <vector>

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

class Devices {
  public:
    /// BackendError if ggml has no CPU device. `should_stop(data)` is polled by the CPU between the nodes of a graph.
    Devices(bool want_gpu, int n_threads, ggml_abort_callback should_stop, void* data);

    ggml_backend_t cpu() const { return cpu_.get(); }
    ggml_backend_t gpu() const { return gpu_.get(); }  // null: everything on the CPU
    ggml_backend_t get(bool on_gpu) const { return on_gpu ? gpu() : cpu(); }

    /// In the scheduler's order: GPU first, CPU last.
    std::vector<ggml_backend_t> all() const;

  private:
    BackendPtr cpu_, gpu_;
};

}  // namespace dgemma
