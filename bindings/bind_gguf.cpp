#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "dgemma/dgemma.h"

using namespace nb::literals;

namespace {

struct ToPython {
    nb::object operator()(bool value) const { return nb::cast(value); }
    nb::object operator()(int64_t value) const { return nb::cast(value); }
    nb::object operator()(uint64_t value) const { return nb::cast(value); }
    nb::object operator()(double value) const { return nb::cast(value); }
    nb::object operator()(const std::string& value) const { return to_text(value); }
    nb::object operator()(const std::vector<bool>& values) const { return nb::cast(values); }
    nb::object operator()(const std::vector<int64_t>& values) const { return nb::cast(to_numpy<int64_t>(values)); }
    nb::object operator()(const std::vector<uint64_t>& values) const { return nb::cast(to_numpy<uint64_t>(values)); }
    nb::object operator()(const std::vector<double>& values) const { return nb::cast(to_numpy<double>(values)); }
    nb::object operator()(const std::vector<std::string>& values) const {
        nb::list list;
        for (const std::string& value : values) list.append(to_text(value));
        return list;
    }
};

nb::dict metadata(const dgemma::GgufInfo& info) {
    nb::dict values;
    for (const auto& [key, value] : info.metadata) values[to_text(key)] = std::visit(ToPython{}, value);
    return values;
}

nb::list paths(const dgemma::GgufInfo& info) {
    nb::list list;
    for (const std::string& path : info.paths) {
        list.append(nb::steal(PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size()))));
    }
    return list;
}

}  // namespace

void init_gguf(nb::module_& m) {
    nb::class_<dgemma::TensorInfo>(m, "GgufTensor", "One tensor of a GGUF file.")
        .def_prop_ro("name", [](const dgemma::TensorInfo& t) { return to_text(t.name); })
        .def_ro("type", &dgemma::TensorInfo::type, "ggml's name of the type, \"f32\" or \"q4_K\".")
        .def_prop_ro(
            "shape", [](const dgemma::TensorInfo& t) { return nb::tuple(nb::cast(t.shape)); },
            nb::sig("def shape(self) -> tuple[int, ...]"), "GGUF's order: columns first.")
        .def_ro("n_bytes", &dgemma::TensorInfo::n_bytes);
    nb::class_<dgemma::GgufInfo>(m, "GgufInfo", "The header of a GGUF file or of a split set.")
        .def_ro("version", &dgemma::GgufInfo::version)
        .def_ro("n_bytes", &dgemma::GgufInfo::n_bytes, "Of all files of the set.")
        .def_prop_ro("paths", &paths, nb::sig("def paths(self) -> list[str]"), "One file, or the split set in order.")
        .def_prop_ro("metadata", &metadata, nb::sig("def metadata(self) -> dict[str, object]"),
                     "Scalars as int, float, bool or str; arrays of numbers as numpy arrays, of bool and str as lists.")
        .def_ro("tensors", &dgemma::GgufInfo::tensors);
    m.def(
        "read_gguf", [](const std::filesystem::path& path) { return dgemma::read_gguf(path.string()); }, "path"_a,
        nb::call_guard<nb::gil_scoped_release>(),
        "Reads the header of a GGUF file or of the split set that it belongs to.\n\n"
        "Raises ModelFileError for a file that is missing, damaged or not GGUF.");
    m.def(
        "plan_memory",
        [](const std::filesystem::path& path, int n_ctx, const std::string& kv_type, int n_batch) {
            dgemma::EngineOptions options;
            options.n_ctx = n_ctx;
            options.n_batch = n_batch;
            options.kv_f32 = kv_type == "f32";
            return dgemma::plan_memory(path.string(), options);
        },
        "path"_a, "n_ctx"_a, "kv_type"_a, "n_batch"_a, nb::call_guard<nb::gil_scoped_release>(),
        "device -> purpose (weights, kv, compute, sampler) -> bytes, for an engine with one session on the CPU. "
        "n_batch: 0 for the engine's own choice.");
}
