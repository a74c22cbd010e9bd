#include "session/engine_core.h"

#include "session/session_core.h"
#include "support/heap.h"

namespace dgemma {
EngineCore::EngineCore(const std::string& path, const EngineOptions& options)
    : options_(checked_options(options)), worker_(options_.interrupted), pool_(options_.n_threads) {
    worker_.run_to_end([&] {
        const auto should_stop = [](void* worker) { return static_cast<const Worker*>(worker)->stopping(); };
        devices_ = std::make_unique<Devices>(options_.n_threads, should_stop, &worker_);
        model_ = std::make_unique<Model>(path, *devices_);
        options_.n_ctx = checked_context(options_.n_ctx, model_->hparams());
        options_.n_batch = checked_batch(options_, *model_, devices_->info());
        const EnginePlan plan = plan_engine(*model_, *devices_, options_, devices_->info());
        plan_ = plan.shown;
        for (int card = 0; card < devices_->cpu_index(); ++card) {
            if (plan.placement.uses(card)) devices_->start(card);
        }
        if (devices_->started().size() > 1) model_->place(*devices_, plan.placement);
    });
    release_freed_memory();  // the header's many small pieces and the graphs of the plan
}

EngineCore::~EngineCore() {
    worker_.run_to_end([&] {
        model_.reset();
        devices_.reset();
    });
}

void EngineCore::add_session(SessionCore* session) {
    const std::lock_guard<std::mutex> lock(sessions_mutex_);
    sessions_.insert(session);
}

void EngineCore::remove_session(SessionCore* session) {
    const std::lock_guard<std::mutex> lock(sessions_mutex_);
    sessions_.erase(session);
}

MemoryUse EngineCore::memory() {
    MemoryUse use;
    model_->add_memory(use);
    const std::lock_guard<std::mutex> lock(sessions_mutex_);
    for (const SessionCore* session : sessions_) session->add_memory(use);
    if (sessions_.empty()) {
        for (const auto& [device, purposes] : plan_.memory) {
            for (const char* purpose : {"kv", "compute", "sampler"}) {
                if (const auto bytes = purposes.find(purpose); bytes != purposes.end()) {
                    use[device][purpose] += bytes->second;
                }
            }
        }
    }
    return use;
}

}  // namespace dgemma
