// What a device reaches in plain work: ggml's copy of a tensor, and ggml's product, a graph of equal nodes each.
#include <ggml.h>

#include <chrono>
#include <cstring>

#include "dgemma/dgemma.h"
#include "model/devices.h"
#include "support/types.h"

namespace dgemma {
namespace {

constexpr int kRepeats = 4;  // of a graph, after one that is not timed
constexpr size_t kOtherTensors = 8;

BackendPtr start(const std::string& device) {
    ggml_backend_dev_t found = ggml_backend_dev_by_name(device.c_str());
    if (found == nullptr) throw RequestError("there is no device " + device);
    BackendPtr backend(ggml_backend_dev_init(found, nullptr));
    if (!backend) throw BackendError(device + ": the device could not be started");
    return backend;
}

/// A graph on one device; its nodes are added before its memory is there.
class Graph {
  public:
    Graph(ggml_backend_t backend, int n_nodes)
        : backend_(backend),
          context_(ggml_init(
              {(static_cast<size_t>(n_nodes) + kOtherTensors) * ggml_tensor_overhead() + ggml_graph_overhead(),
               /*mem_buffer=*/nullptr, /*no_alloc=*/true})),
          graph_(ggml_new_graph(context_.get())) {}

    ggml_context* context() const { return context_.get(); }
    void add(ggml_tensor* node) { ggml_build_forward_expand(graph_, node); }
    void allocate() {
        for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
            if (ggml_backend_supports_op(backend_, ggml_graph_node(graph_, i))) continue;
            throw BackendError(std::string(ggml_backend_name(backend_)) + " has no such operation for this type");
        }
        buffer_.reset(ggml_backend_alloc_ctx_tensors(context(), backend_));
        if (!buffer_)
            throw BackendError(std::string(ggml_backend_name(backend_)) + ": not enough memory to measure in");
        ggml_backend_buffer_clear(buffer_.get(), 0);
    }
    /// Seconds a node, for each time that the graph is computed.
    std::vector<double> seconds() const {
        std::vector<double> all;
        for (int i = 0; i <= kRepeats; ++i) {
            const auto begin = std::chrono::steady_clock::now();
            if (ggml_backend_graph_compute(backend_, graph_) != GGML_STATUS_SUCCESS) {
                throw BackendError(std::string(ggml_backend_name(backend_)) +
                                   " could not compute what was to be timed");
            }
            const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
            if (i > 0) all.push_back(taken.count() / ggml_graph_n_nodes(graph_));
        }
        return all;
    }

  private:
    ggml_backend_t backend_;
    ContextPtr context_;
    ggml_cgraph* graph_;
    BufferPtr buffer_;
};

}  // namespace

std::vector<double> time_copy(const std::string& device, int64_t n_bytes, int n_nodes) {
    const BackendPtr backend = start(device);
    Graph graph(backend.get(), n_nodes);
    const int64_t n = n_bytes / static_cast<int64_t>(sizeof(float));
    ggml_tensor* from = ggml_new_tensor_1d(graph.context(), GGML_TYPE_F32, n);
    ggml_tensor* to = ggml_new_tensor_1d(graph.context(), GGML_TYPE_F32, n);
    for (int i = 0; i < n_nodes; ++i) graph.add(ggml_cpy(graph.context(), from, to));
    graph.allocate();
    return graph.seconds();
}

std::vector<double> time_product(const std::string& device, const RowProduct& product, int n_nodes) {
    const BackendPtr backend = start(device);
    Graph graph(backend.get(), n_nodes);
    ggml_context* ctx = graph.context();
    ggml_tensor* weights = ggml_new_tensor_2d(ctx, weight_type(product.type), product.n_cols, product.n_rows);
    ggml_tensor* columns = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, product.n_cols, product.n);
    for (int i = 0; i < n_nodes; ++i) graph.add(ggml_mul_mat(ctx, weights, columns));
    graph.allocate();
    ggml_backend_tensor_set(weights, product.weights, 0, ggml_nbytes(weights));
    ggml_backend_tensor_set(columns, product.columns, 0, ggml_nbytes(columns));
    return graph.seconds();
}

}  // namespace dgemma
