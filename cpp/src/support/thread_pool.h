// A small pool for our own row kernels (sampler, soft embedding). ggml runs its graphs on its own threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dgemma {

class ThreadPool {
  public:
    /// `n_threads` counts the calling thread. BackendError if the system does not give so many.
    explicit ThreadPool(int n_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    /// Runs task(0) … task(n - 1), each once, in any order; returns when all are done. A task must not throw.
    void run(int n, const std::function<void(int)>& task);

    int size() const { return static_cast<int>(workers_.size()) + 1; }

  private:
    void work();
    void drain();
    void end();

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, finished_;
    const std::function<void(int)>* task_ = nullptr;
    int n_tasks_ = 0;
    std::atomic<int> next_{0};
    uint64_t round_ = 0;
    int busy_ = 0;
    bool stop_ = false;
};

}  // namespace dgemma
