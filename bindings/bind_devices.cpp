#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "dgemma/dgemma.h"

using namespace nb::literals;

void init_devices(nb::module_& m) {
    nb::class_<dgemma::DeviceInfo>(m, "DeviceInfo", "One of ggml's devices.")
        .def_ro("name", &dgemma::DeviceInfo::name, "\"CUDA0\" or \"CPU\".")
        .def_ro("description", &dgemma::DeviceInfo::description)
        .def_ro("free_bytes", &dgemma::DeviceInfo::free_bytes, "0 where the device does not say.")
        .def_ro("total_bytes", &dgemma::DeviceInfo::total_bytes)
        .def_ro("is_gpu", &dgemma::DeviceInfo::is_gpu);
    m.def("usable_cores", &dgemma::usable_cores, "sysfs"_a = "/sys", "processors"_a = std::vector<int>{},
          "The threads that an engine computes with unless told otherwise.");
    m.def("use_numa", &dgemma::use_numa, "strategy"_a, "Binds threads on machines with several memory nodes.");
    m.def("list_devices", &dgemma::list_devices, nb::call_guard<nb::gil_scoped_release>(),
          "The GPUs in ggml's order (integrated ones only where there is no other), then the CPU.");
    m.def("why_no_gpu", &dgemma::why_no_gpu, nb::call_guard<nb::gil_scoped_release>(),
          "Why no GPU is among them, and what would help: one sentence; empty where there is one.");
    nb::class_<dgemma::DeviceRequest>(m, "DeviceRequest", "Which weights go where; see Engine.")
        .def(nb::init<int, int, std::vector<std::string>, std::vector<float>, int>(), nb::kw_only(),
             "n_gpu_layers"_a = -1, "n_cpu_moe"_a = 0, "override_tensor"_a = std::vector<std::string>(),
             "tensor_split"_a = std::vector<float>(), "main_gpu"_a = -1);
    nb::class_<dgemma::DevicePlan> plan(m, "DevicePlan", "Where an engine with one session puts the model.");
    nb::class_<dgemma::DevicePlan::Layer>(plan, "Layer")
        .def_ro("device", &dgemma::DevicePlan::Layer::device, "Of its vectors and its keys and values.")
        .def_ro("experts", &dgemma::DevicePlan::Layer::experts, "Of its mixture.");
    plan.def_ro("devices", &dgemma::DevicePlan::devices)
        .def_ro("memory", &dgemma::DevicePlan::memory,
                "device -> purpose (weights, kv, compute, sampler, reserve) -> bytes.")
        .def_ro("layers", &dgemma::DevicePlan::layers)
        .def_ro("head", &dgemma::DevicePlan::head)
        .def_ro("own_card_layers", &dgemma::DevicePlan::own_card_layers,
                "Whether our CUDA kernels compute the layers but for their attention.")
        .def_ro("notes", &dgemma::DevicePlan::notes, "What was asked for and cannot be had, a sentence each.");
    m.def(
        "plan_devices",
        [](const std::filesystem::path& path, int n_ctx, const std::string& kv_type, int n_batch,
           const dgemma::DeviceRequest& devices, const std::optional<std::vector<uint64_t>>& cards) {
            dgemma::EngineOptions options;
            options.n_ctx = n_ctx;
            options.n_batch = n_batch;
            options.kv_f32 = kv_type == "f32";
            options.devices = devices;
            return dgemma::plan_devices(path.string(), options, cards);
        },
        "path"_a, "n_ctx"_a, "kv_type"_a, "n_batch"_a, "devices"_a, "cards"_a = nb::none(),
        nb::call_guard<nb::gil_scoped_release>(),
        "The plan from the file's header alone; ``cards``: free bytes of GPUs to plan for in place of the machine's.");
}
