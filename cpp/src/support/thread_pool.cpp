#include "support/thread_pool.h"

#include <string>
#include <system_error>

#include "dgemma/dgemma.h"

namespace dgemma {

ThreadPool::ThreadPool(int n_threads) {
    try {
        for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
        end();
        throw BackendError("the system gives no more than " + std::to_string(size()) + " threads (" +
                           error.code().message() + "); a smaller n_threads needs fewer");
    }
}

ThreadPool::~ThreadPool() { end(); }

void ThreadPool::end() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::drain() {
    for (int i = next_.fetch_add(1); i < n_tasks_; i = next_.fetch_add(1)) (*task_)(i);
}

void ThreadPool::work() {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        wake_.wait(lock, [&] { return stop_ || round_ != seen; });
        if (stop_) return;
        seen = round_;
        lock.unlock();
        drain();
        lock.lock();
        if (--busy_ == 0) finished_.notify_one();
    }
}

void ThreadPool::run(int n, const std::function<void(int)>& task) {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        task_ = &task;
        n_tasks_ = n;
        next_ = 0;
        busy_ = static_cast<int>(workers_.size());
        ++round_;
    }
    wake_.notify_all();
    drain();
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [&] { return busy_ == 0; });
}

}  // namespace dgemma
