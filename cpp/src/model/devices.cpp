#include "model/devices.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <map>

#include "dgemma/dgemma.h"
#include "support/log.h"

namespace dgemma {
namespace {

template <typename Function>
Function cpu_function(ggml_backend_reg_t registry, const char* name) {
    return reinterpret_cast<Function>(ggml_backend_reg_get_proc_address(registry, name));
}

// What ggml complained of when it looked for devices, once for the process: of CUDA, why it found none.
std::string g_load_error;

constexpr size_t kMostCards = 15;  // with the CPU, as many devices as ggml's scheduler takes

std::vector<ggml_backend_dev_t> devices_of_type(enum ggml_backend_dev_type wanted) {
    std::vector<ggml_backend_dev_t> found;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(device) == wanted) found.push_back(device);
    }
    return found;
}

std::vector<ggml_backend_dev_t> find_cards() {
    std::vector<ggml_backend_dev_t> cards = devices_of_type(GGML_BACKEND_DEVICE_TYPE_GPU);
    if (cards.empty()) cards = devices_of_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
    if (cards.size() > kMostCards) cards.resize(kMostCards);
    return cards;
}

DeviceInfo describe(ggml_backend_dev_t device) {
    size_t free = 0, total = 0;
    ggml_backend_dev_memory(device, &free, &total);
    const bool is_gpu = ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_CPU;
    return {ggml_backend_dev_name(device), ggml_backend_dev_description(device), free, total, is_gpu};
}

ggml_backend_dev_t find_cpu() {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (cpu == nullptr) throw BackendError("ggml found no CPU device; its libraries are incomplete");
    return cpu;
}

}  // namespace

std::string ggml_built_version() { return DGEMMA_GGML_VERSION; }

std::string ggml_found_version() { return ggml_version(); }

void load_backends(const std::string& backend_dir) {
    const GgmlLog log;
    if (ggml_backend_dev_count() == 0) ggml_backend_load_all_from_path(backend_dir.c_str());
    g_load_error = log.first_error();
}

ContextPtr make_tensor_context(size_t n) {
    ggml_init_params params{/*mem_size=*/n * ggml_tensor_overhead(), /*mem_buffer=*/nullptr, /*no_alloc=*/true};
    ContextPtr context(ggml_init(params));
    if (!context) throw BackendError("ggml could not allocate a context for " + std::to_string(n) + " tensors");
    return context;
}

std::vector<DeviceInfo> list_devices() {
    const GgmlLog log;
    std::vector<DeviceInfo> all;
    for (ggml_backend_dev_t card : find_cards()) all.push_back(describe(card));
    all.push_back(describe(find_cpu()));
    return all;
}

void use_numa(const std::string& strategy) {
    const std::map<std::string, enum ggml_numa_strategy> strategies{{"distribute", GGML_NUMA_STRATEGY_DISTRIBUTE},
                                                                    {"isolate", GGML_NUMA_STRATEGY_ISOLATE},
                                                                    {"numactl", GGML_NUMA_STRATEGY_NUMACTL}};
    const auto found = strategies.find(strategy);
    if (found == strategies.end()) {
        throw RequestError("numa is \"" + strategy + "\"; it must be \"distribute\", \"isolate\" or \"numactl\"");
    }
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(find_cpu());
    const auto init = cpu_function<void (*)(enum ggml_numa_strategy)>(registry, "ggml_backend_cpu_numa_init");
    if (init == nullptr) throw RequestError("numa: this ggml cannot bind threads to memory nodes");
    const GgmlLog log;
    init(found->second);
}

std::string device_name(ggml_backend_t backend) { return ggml_backend_dev_name(ggml_backend_get_device(backend)); }

std::string why_no_gpu() {
    if (!find_cards().empty()) return "";
    std::string backends;
    for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
        const std::string name = ggml_backend_reg_name(ggml_backend_reg_get(i));
        if (name != "CPU") backends += (backends.empty() ? "" : ", ") + name;
    }
    if (!backends.empty()) {
        return "ggml's " + backends + " finds no GPU" + (g_load_error.empty() ? "" : " (" + g_load_error + ")") +
               "; its driver may be missing or too old, or the card hidden (CUDA_VISIBLE_DEVICES and the like)";
    }
    return "this ggml is built for the CPU alone; CMAKE_ARGS=\"-DGGML_CUDA=on\" pip install --force-reinstall "
           "--no-cache-dir llama-cpp-python==0.3.36 builds one for NVIDIA's cards";
}

Devices::Devices(int n_threads, ggml_abort_callback should_stop, void* data) : info_(list_devices()) {
    backends_.resize(info_.size());
    backends_.back().reset(ggml_backend_dev_init(find_cpu(), nullptr));
    if (backends_.back() == nullptr) throw BackendError("ggml could not start its CPU device");
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu()));
    const auto set_threads = cpu_function<ggml_backend_set_n_threads_t>(registry, "ggml_backend_set_n_threads");
    const auto set_abort = cpu_function<ggml_backend_set_abort_callback_t>(registry, "ggml_backend_set_abort_callback");
    if (set_threads != nullptr) set_threads(cpu(), n_threads);
    if (set_abort != nullptr) set_abort(cpu(), should_stop, data);
}

void Devices::start(int card) {
    BackendPtr& backend = backends_[static_cast<size_t>(card)];
    if (backend) return;
    const std::vector<ggml_backend_dev_t> cards = find_cards();
    if (static_cast<size_t>(card) < cards.size()) {
        backend.reset(ggml_backend_dev_init(cards[static_cast<size_t>(card)], nullptr));
    }
    if (!backend) {
        throw BackendError(info_[static_cast<size_t>(card)].name +
                           ": the device could not be started; n_gpu_layers=0 runs on the CPU");
    }
}

ggml_backend_t Devices::holding(const ggml_tensor* tensor) const {
    ggml_backend_dev_t device = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(tensor->buffer));
    for (const BackendPtr& backend : backends_) {
        if (backend && ggml_backend_get_device(backend.get()) == device) return backend.get();
    }
    return cpu();
}

std::vector<ggml_backend_t> Devices::started() const {
    std::vector<ggml_backend_t> all;
    for (const BackendPtr& backend : backends_) {
        if (backend) all.push_back(backend.get());
    }
    return all;
}

}  // namespace dgemma
