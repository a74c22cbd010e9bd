#include "model/devices.h"

#include <ggml.h>

#include "dgemma/dgemma.h"
#include "support/log.h"

namespace dgemma {
namespace {

template <typename Function>
Function cpu_function(ggml_backend_t cpu, const char* name) {
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu));
    return reinterpret_cast<Function>(ggml_backend_reg_get_proc_address(registry, name));
}

ggml_backend_dev_t find_gpu() {
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
    return device != nullptr ? device : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
}

}  // namespace

std::string ggml_built_version() { return DGEMMA_GGML_VERSION; }

std::string ggml_found_version() { return ggml_version(); }

void load_backends(const std::string& backend_dir) {
    const GgmlLog log;
    if (ggml_backend_dev_count() == 0) ggml_backend_load_all_from_path(backend_dir.c_str());
}

ContextPtr make_tensor_context(size_t n) {
    ggml_init_params params{/*mem_size=*/n * ggml_tensor_overhead(), /*mem_buffer=*/nullptr, /*no_alloc=*/true};
    ContextPtr context(ggml_init(params));
    if (!context) throw BackendError("ggml could not allocate a context for " + std::to_string(n) + " tensors");
    return context;
}

Devices::Devices(bool want_gpu, int n_threads, ggml_abort_callback should_stop, void* data) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (cpu != nullptr) cpu_.reset(ggml_backend_dev_init(cpu, nullptr));
    if (!cpu_) throw BackendError("ggml found no CPU device; its libraries are incomplete");
    const auto set_threads = cpu_function<ggml_backend_set_n_threads_t>(this->cpu(), "ggml_backend_set_n_threads");
    const auto set_abort =
        cpu_function<ggml_backend_set_abort_callback_t>(this->cpu(), "ggml_backend_set_abort_callback");
    if (set_threads != nullptr) set_threads(this->cpu(), n_threads);
    if (set_abort != nullptr) set_abort(this->cpu(), should_stop, data);
    if (!want_gpu) return;
    if (ggml_backend_dev_t gpu = find_gpu(); gpu != nullptr) {
        gpu_.reset(ggml_backend_dev_init(gpu, nullptr));
        if (!gpu_) {
            throw BackendError(std::string(ggml_backend_dev_name(gpu)) +
                               ": the device could not be started; n_gpu_layers=0 runs on the CPU");
        }
    }
}

std::vector<ggml_backend_t> Devices::all() const {
    if (!gpu_) return {cpu()};
    return {gpu(), cpu()};
}

}  // namespace dgemma
