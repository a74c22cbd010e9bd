#include "support/worker.h"

#include <chrono>

#include "dgemma/dgemma.h"

namespace dgemma {

Worker::Worker(std::function<bool()> interrupted) : interrupted_(std::move(interrupted)), thread_([this] { loop(); }) {}

Worker::~Worker() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        quit_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

void Worker::loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        wake_.wait(lock, [&] { return quit_ || job_ != nullptr; });
        if (quit_) return;
        const std::function<void()>* job = job_;
        lock.unlock();
        std::exception_ptr error;
        try {
            (*job)();
        } catch (...) {
            error = std::current_exception();
        }
        lock.lock();
        error_ = error;
        job_ = nullptr;
        done_.notify_one();
    }
}

void Worker::run(const std::function<void()>& job) { wait_for(job, /*ask=*/true); }

void Worker::run_to_end(const std::function<void()>& job) { wait_for(job, /*ask=*/false); }

void Worker::wait_for(const std::function<void()>& job, bool ask) {
    std::lock_guard<std::mutex> entry(entry_);
    std::unique_lock<std::mutex> lock(mutex_);
    stopping_ = false;
    error_ = nullptr;
    job_ = &job;
    wake_.notify_one();
    while (!done_.wait_for(lock, std::chrono::milliseconds(50), [&] { return job_ == nullptr; })) {
        if (!ask || !interrupted_ || stopping_) continue;
        lock.unlock();  // the question may take another lock (Python's), so it is asked without ours
        if (interrupted_()) stopping_ = true;
        lock.lock();
    }
    if (error_) std::rethrow_exception(error_);
    if (stopping_) throw Cancelled("the computation was stopped");
}

}  // namespace dgemma
