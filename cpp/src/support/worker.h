// The engine's one thread. All ggml calls are made on it: OpenMP's pool belongs to the thread that opens a parallel
// region, and a device's state to the thread that set it up.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace dgemma {

class Worker {
  public:
    /// `interrupted` is asked on the waiting thread, about twenty times a second, while a job runs; may be empty.
    explicit Worker(std::function<bool()> interrupted);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    /// Runs the job on the worker's thread and waits for it. What it throws is thrown here; Cancelled also if the wish
    /// to stop came too late for the job to see it, because whoever was asked has reported it already.
    void run(const std::function<void()>& job);
    /// The same without asking anyone: for jobs that do not poll stopping(), and in destructors.
    void run_to_end(const std::function<void()>& job);

    /// True while the running job should stop; the job polls it.
    bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

  private:
    void loop();
    void wait_for(const std::function<void()>& job, bool ask);

    std::function<bool()> interrupted_;
    std::mutex entry_;  // one caller at a time
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    const std::function<void()>* job_ = nullptr;
    std::exception_ptr error_;
    std::atomic<bool> stopping_{false};
    bool quit_ = false;
    std::thread thread_;
};

}  // namespace dgemma
