// The public classes: each call becomes a job on the engine's thread.
#include "denoise/loop.h"
#include "dgemma/dgemma.h"
#include "session/engine_core.h"
#include "session/session_core.h"
#include "session/session_file.h"

namespace dgemma {

MemoryUse plan_memory(const std::string& path, const EngineOptions& options) {
    return plan_devices(path, options, std::vector<uint64_t>{}).memory;
}

DevicePlan plan_devices(const std::string& path, const EngineOptions& options,
                        const std::optional<std::vector<uint64_t>>& cards) {
    EngineOptions checked = checked_options(options);
    Worker worker(options.interrupted);
    DevicePlan plan;
    worker.run_to_end([&] {
        const Devices devices(checked.n_threads, nullptr, nullptr);
        const Model model(path, devices);
        checked.n_ctx = checked_context(checked.n_ctx, model.hparams());
        std::vector<DeviceInfo> there = devices.info();
        if (cards) {
            there = {there.back()};
            for (size_t i = 0; i < cards->size(); ++i) {
                there.insert(there.end() - 1, {"GPU" + std::to_string(i), "", (*cards)[i], (*cards)[i], true});
            }
        }
        checked.n_batch = checked_batch(checked, model, there);
        plan = plan_engine(model, devices, checked, there).shown;
    });
    return plan;
}

Engine::Engine(const std::string& path, const EngineOptions& options)
    : core_(std::make_shared<EngineCore>(path, options)) {}

const ModelInfo& Engine::info() const { return core_->model().info(); }

const EngineOptions& Engine::options() const { return core_->options(); }

MemoryUse Engine::memory() const { return core_->memory(); }

const DevicePlan& Engine::plan() const { return core_->plan(); }

std::shared_ptr<Session> Engine::session() { return std::make_shared<Session>(core_); }

Session::Session(std::shared_ptr<EngineCore> core) : engine_(std::move(core)) {
    engine_->worker().run_to_end([&] { impl_ = std::make_unique<SessionCore>(*engine_); });
    engine_->add_session(impl_.get());
}

Session::~Session() {
    if (!impl_) return;
    engine_->remove_session(impl_.get());
    engine_->worker().run_to_end([&] { impl_.reset(); });
}

int Session::n_past() const { return impl_->cache().n_past(); }

void Session::prefill(const std::vector<int32_t>& tokens) {
    if (tokens.empty()) throw RequestError("prefill: there are no tokens; an empty prompt has nothing to answer");
    begin_use();
    engine_->worker().run([&] { impl_->encode(tokens); });
}

void Session::denoise(const std::vector<int32_t>& canvas, const float* previous, float* logits) {
    begin_use();
    engine_->worker().run([&] {
        if (previous != nullptr) impl_->logits().condition_on(previous);
        impl_->compute_logits(canvas, /*conditioned=*/previous != nullptr);
        impl_->logits().read(logits);
    });
}

void Session::truncate(int n) {
    begin_use();
    engine_->worker().run_to_end([&] { impl_->cache().truncate(n); });
}

Snapshot Session::snapshot() {
    std::shared_ptr<const RingSnapshot> rings;
    engine_->worker().run_to_end([&] { rings = impl_->cache().snapshot(); });
    return {rings->n_past, rings->n_bytes(), rings};
}

void Session::restore(const Snapshot& snapshot) {
    begin_use();
    engine_->worker().run_to_end([&] { impl_->cache().restore(*snapshot.rings); });
}

void Session::save(const std::string& path, const std::string& note) {
    engine_->worker().run_to_end([&] { save_session(path, note, engine_->model(), impl_->cache()); });
}

std::string Session::load(const std::string& path) {
    std::string note;
    begin_use();
    engine_->worker().run_to_end([&] { note = load_session(path, engine_->model(), impl_->cache()); });
    return note;
}

void Session::collect_inputs() {
    engine_->worker().run_to_end([&] { impl_->collect_inputs(); });
}

std::vector<InputSums> Session::take_inputs() {
    std::vector<InputSums> sums;
    engine_->worker().run_to_end([&] { sums = impl_->take_inputs(); });
    return sums;
}

void Session::time_parts() {
    engine_->worker().run_to_end([&] { impl_->time_parts(); });
}

std::map<std::string, double> Session::take_parts() {
    std::map<std::string, double> seconds;
    engine_->worker().run_to_end([&] { seconds = impl_->take_parts(); });
    return seconds;
}

Generation::Generation(std::shared_ptr<Session> session, const GenerationRequest& request)
    : session_(std::move(session)) {
    if (request.prompt.empty() && session_->n_past() == 0) {
        throw RequestError("generate: the prompt is empty; there is nothing to answer");
    }
    session_->core().check_tokens(request.prompt, "generate");
    loop_ = std::make_unique<DenoiseLoop>(session_->core(), request);
}

Generation::~Generation() = default;

std::optional<Event> Generation::next() {
    if (last_use_ != 0 && last_use_ != session_->n_uses()) {
        throw RequestError("generate: the session was used for something else since; this answer cannot go on");
    }
    const uint64_t use = session_->begin_use();
    std::optional<Event> event;
    session_->engine().worker().run([&] { event = loop_->next(); });
    last_use_ = use;
    return event;
}

}  // namespace dgemma
