// Our kernels beside ggml's on the first card: what both timings (experts, dense products) share.
#pragma once

#include <chrono>
#include <cmath>
#include <functional>
#include <vector>

#include "cuda/card.h"
#include "dgemma/card_jobs.h"
#include "model/devices.h"

namespace dgemma::cuda {

constexpr int kBatches = 5;  // each as many runs as asked for; one batch before them is not timed

/// Milliseconds a run, of each batch.
inline std::vector<double> time_runs(int n, const std::function<void()>& queue, const std::function<void()>& wait) {
    std::vector<double> times;
    for (int batch = 0; batch <= kBatches; ++batch) {
        const auto begin = std::chrono::steady_clock::now();
        for (int i = 0; i < n; ++i) queue();
        wait();
        const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - begin;
        if (batch > 0) times.push_back(taken.count() / n);
    }
    return times;
}

/// |a - b| / |b|, of as many values as b has.
inline double distance(const float* a, const std::vector<float>& b) {
    double error = 0, length = 0;
    for (size_t i = 0; i < b.size(); ++i) {
        error += std::pow(static_cast<double>(a[i]) - b[i], 2);
        length += std::pow(static_cast<double>(b[i]), 2);
    }
    return std::sqrt(error / length);
}

/// Of a graph of so many tensors at most, which get their memory together.
inline ContextPtr timed_context(size_t n_tensors) {
    const size_t n_bytes = n_tensors * ggml_tensor_overhead() + ggml_graph_overhead();
    return ContextPtr(ggml_init({n_bytes, /*mem_buffer=*/nullptr, /*no_alloc=*/true}));
}

/// The first card, started. BackendError where our kernels cannot run on it.
class FirstCard {
  public:
    FirstCard() : devices_(/*n_threads=*/1, /*should_stop=*/nullptr, /*data=*/nullptr) {
        if (const std::string why = cuda_unavailable(); !why.empty()) throw BackendError(why);
        if (devices_.cpu_index() > 0) devices_.start(0);
        if (!runs_on(backend())) throw BackendError(name() + " is not a card that our kernels run on");
    }

    ggml_backend_t backend() const { return devices_.get(0); }
    std::string name() const { return device_name(backend()); }

    std::vector<double> time(ggml_cgraph* graph, int n_runs) const {
        const auto compute = [&] {
            if (ggml_backend_graph_compute_async(backend(), graph) == GGML_STATUS_SUCCESS) return;
            throw BackendError("ggml could not compute what is timed");
        };
        return time_runs(n_runs, compute, [&] { ggml_backend_synchronize(backend()); });
    }

  private:
    Devices devices_;
};

}  // namespace dgemma::cuda
