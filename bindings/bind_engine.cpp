#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "dgemma/dgemma.h"

using namespace nb::literals;
using Release = nb::call_guard<nb::gil_scoped_release>;

namespace {

using Logits = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

/// Asked a few times a second while Python waits without the GIL: true once a signal handler raised (Ctrl-C).
bool signal_raised() {
    const nb::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
}

std::shared_ptr<dgemma::Engine> make_engine(const std::filesystem::path& path, int n_ctx, int n_threads, int n_batch,
                                            bool kv_f32, bool exact, bool own_card_layers,
                                            const dgemma::DeviceRequest& devices) {
    const dgemma::EngineOptions options{n_ctx, n_threads,       n_batch, kv_f32,
                                        exact, own_card_layers, devices, signal_raised};
    return std::make_shared<dgemma::Engine>(path.string(), options);
}

/// Python lets go of a session with the GIL in hand, and its end waits for the engine's thread; another session's
/// caller may have that thread and be waiting for the GIL (signal_raised), so it is put down meanwhile.
std::shared_ptr<dgemma::Session> make_session(dgemma::Engine& engine) {
    std::shared_ptr<dgemma::Session> session = engine.session();
    dgemma::Session* const self = session.get();
    return {self, [session = std::move(session)](dgemma::Session*) mutable {
                const nb::gil_scoped_release release;
                session.reset();
            }};
}

Array2<float> denoise(dgemma::Session& session, const std::vector<int32_t>& canvas, int n_vocab,
                      const std::optional<Logits>& previous) {
    const size_t rows = canvas.size(), columns = static_cast<size_t>(n_vocab);
    float* data = new float[rows * columns];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    {
        const nb::gil_scoped_release release;
        session.denoise(canvas, previous ? previous->data() : nullptr, data);
    }
    return Array2<float>(data, {rows, columns}, owner);
}

/// name -> (sums float64 [matrices, cols], rows int64 [matrices])
nb::dict take_inputs(dgemma::Session& session) {
    std::vector<dgemma::InputSums> all;
    {
        const nb::gil_scoped_release release;
        all = session.take_inputs();
    }
    nb::dict by_name;
    for (const dgemma::InputSums& one : all) {
        const nb::object sums = nb::cast(to_numpy<double>(one.sums));
        by_name[to_text(one.name)] =
            nb::make_tuple(sums.attr("reshape")(one.rows.size(), one.n_cols), nb::cast(to_numpy<int64_t>(one.rows)));
    }
    return by_name;
}

const char* reason(const dgemma::DoneEvent& event) {
    switch (event.reason) {
        case dgemma::DoneReason::kStop:
            return "stop";
        case dgemma::DoneReason::kLength:
            return "length";
        default:
            return "context";
    }
}

void init_events(nb::module_& m) {
    nb::class_<dgemma::StepEvent>(m, "StepEvent")
        .def_ro("block", &dgemma::StepEvent::block)
        .def_ro("step", &dgemma::StepEvent::step)
        .def_ro("temperature", &dgemma::StepEvent::temperature)
        .def_prop_ro(
            "canvas", [](const dgemma::StepEvent& e) { return to_numpy<int32_t>(e.canvas); }, nb::rv_policy::move)
        .def_prop_ro(
            "argmax", [](const dgemma::StepEvent& e) { return to_numpy<int32_t>(e.argmax); }, nb::rv_policy::move)
        .def_prop_ro(
            "accepted", [](const dgemma::StepEvent& e) { return to_numpy<bool>(e.accepted); }, nb::rv_policy::move)
        .def_prop_ro(
            "entropy", [](const dgemma::StepEvent& e) { return to_numpy<float>(e.entropy); }, nb::rv_policy::move);
    nb::class_<dgemma::BlockEvent>(m, "BlockEvent")
        .def_ro("block", &dgemma::BlockEvent::block)
        .def_ro("tokens", &dgemma::BlockEvent::tokens);
    nb::class_<dgemma::GenerationStats>(m, "GenerationStats")
        .def_ro("prompt_tokens", &dgemma::GenerationStats::prompt_tokens)
        .def_ro("new_tokens", &dgemma::GenerationStats::new_tokens)
        .def_ro("blocks", &dgemma::GenerationStats::blocks)
        .def_ro("steps", &dgemma::GenerationStats::steps)
        .def_ro("encode_seconds", &dgemma::GenerationStats::encode_seconds)
        .def_ro("denoise_seconds", &dgemma::GenerationStats::denoise_seconds)
        .def_ro("wall_seconds", &dgemma::GenerationStats::wall_seconds);
    nb::class_<dgemma::DoneEvent>(m, "DoneEvent")
        .def_prop_ro("reason", &reason, nb::sig("def reason(self) -> typing.Literal['stop', 'length', 'context']"))
        .def_ro("end_token", &dgemma::DoneEvent::end_token)
        .def_ro("stats", &dgemma::DoneEvent::stats);
}

void init_generation(nb::module_& m) {
    nb::class_<dgemma::SamplerConfig>(m, "SamplerConfig")
        .def(nb::init<int, double, double, double, int, double>(), nb::kw_only(), "max_denoising_steps"_a, "t_min"_a,
             "t_max"_a, "entropy_bound"_a, "stability_threshold"_a, "confidence_threshold"_a);
    nb::class_<dgemma::Generation>(m, "Generation", "An answer in the making: pull one event at a time.")
        .def(
            "__init__",
            [](dgemma::Generation* self, const std::shared_ptr<dgemma::Session>& session,
               const std::vector<int32_t>& prompt, int max_new_tokens, uint64_t seed,
               const dgemma::SamplerConfig& sampler) {
                new (self) dgemma::Generation(session, {prompt, max_new_tokens, seed, sampler});
            },
            "session"_a, "prompt"_a, nb::kw_only(), "max_new_tokens"_a, "seed"_a, "sampler"_a)
        .def("next", &dgemma::Generation::next, Release(), "The next event, or None after the DoneEvent.");
}

}  // namespace

void init_engine(nb::module_& m) {
    nb::class_<dgemma::ModelInfo>(m, "ModelInfo")
        .def_ro("n_layer", &dgemma::ModelInfo::n_layer)
        .def_ro("n_embd", &dgemma::ModelInfo::n_embd)
        .def_ro("n_vocab", &dgemma::ModelInfo::n_vocab)
        .def_ro("n_head", &dgemma::ModelInfo::n_head)
        .def_ro("n_expert", &dgemma::ModelInfo::n_expert)
        .def_ro("n_expert_used", &dgemma::ModelInfo::n_expert_used)
        .def_ro("canvas_length", &dgemma::ModelInfo::canvas_length)
        .def_ro("sliding_window", &dgemma::ModelInfo::sliding_window)
        .def_ro("context_length", &dgemma::ModelInfo::context_length)
        .def_ro("eos_ids", &dgemma::ModelInfo::eos_ids)
        .def_ro("file_type", &dgemma::ModelInfo::file_type, "general.file_type, -1 if the file does not say.")
        .def_prop_ro("name", [](const dgemma::ModelInfo& info) { return to_text(info.name); })
        .def_ro("n_params", &dgemma::ModelInfo::n_params)
        .def_ro("n_bytes", &dgemma::ModelInfo::n_bytes);
    nb::class_<dgemma::Snapshot>(m, "Snapshot", "A point of a session that can be gone back to; host memory.")
        .def_ro("n_past", &dgemma::Snapshot::n_past)
        .def_ro("n_bytes", &dgemma::Snapshot::n_bytes);
    nb::class_<dgemma::Session>(m, "Session")
        .def_prop_ro("n_past", &dgemma::Session::n_past)
        .def("prefill", &dgemma::Session::prefill, "tokens"_a, Release())
        .def("denoise", &denoise, "canvas"_a, "n_vocab"_a, "previous"_a = nb::none())
        .def("truncate", &dgemma::Session::truncate, "n"_a, Release())
        .def("snapshot", &dgemma::Session::snapshot, Release())
        .def("restore", &dgemma::Session::restore, "snapshot"_a, Release())
        .def(
            "save",
            [](dgemma::Session& session, const std::filesystem::path& path, const std::string& note) {
                session.save(path.string(), note);
            },
            "path"_a, "note"_a, Release())
        .def(
            "load",
            [](dgemma::Session& session, const std::filesystem::path& path) { return session.load(path.string()); },
            "path"_a, Release())
        .def("time_parts", &dgemma::Session::time_parts, Release())
        .def("take_parts", &dgemma::Session::take_parts, Release())
        .def("collect_inputs", &dgemma::Session::collect_inputs, Release())
        .def("take_inputs", &take_inputs,
             nb::sig("def take_inputs(self) -> dict[str, tuple[NDArray[numpy.float64], NDArray[numpy.int64]]]"));
    nb::class_<dgemma::Engine>(m, "Engine")
        .def(nb::new_(&make_engine), "path"_a, nb::kw_only(), "n_ctx"_a, "n_threads"_a, "n_batch"_a, "kv_f32"_a,
             "exact"_a, "own_card_layers"_a, "devices"_a, Release())
        .def_prop_ro("info", &dgemma::Engine::info)
        .def_prop_ro("n_ctx", [](const dgemma::Engine& engine) { return engine.options().n_ctx; })
        .def_prop_ro("n_threads", [](const dgemma::Engine& engine) { return engine.options().n_threads; })
        .def_prop_ro("n_batch", [](const dgemma::Engine& engine) { return engine.options().n_batch; })
        .def("memory", &dgemma::Engine::memory, Release())
        .def("plan", &dgemma::Engine::plan)
        .def("session", &make_session, Release());
    init_events(m);
    init_generation(m);
}
