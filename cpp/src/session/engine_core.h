// What all sessions of an engine share: the weights, the devices and the thread that works on them.
#pragma once

#include <memory>
#include <mutex>
#include <set>

#include "dgemma/dgemma.h"
#include "model/model.h"
#include "session/plan.h"
#include "support/thread_pool.h"
#include "support/worker.h"

namespace dgemma {

class SessionCore;

class EngineCore {
  public:
    EngineCore(const std::string& path, const EngineOptions& options);
    ~EngineCore();

    const EngineOptions& options() const { return options_; }
    const DevicePlan& plan() const { return plan_; }
    const Model& model() const { return *model_; }
    const Devices& devices() const { return *devices_; }
    ThreadPool& pool() { return pool_; }
    Worker& worker() { return worker_; }

    void add_session(SessionCore* session);
    void remove_session(SessionCore* session);
    /// Of the weights and every living session, or of one session where there is none yet.
    MemoryUse memory();

  private:
    EngineOptions options_;
    Worker worker_;
    ThreadPool pool_;
    std::unique_ptr<Devices> devices_;
    std::unique_ptr<Model> model_;
    DevicePlan plan_;
    std::mutex sessions_mutex_;
    std::set<SessionCore*> sessions_;
};

}  // namespace dgemma
