// The few things that the kernels' host side asks of the CUDA runtime. nvidia/card.cu has them; emulated/card.cpp has
// them for the host's memory, so that all of cuda/ also runs on a machine without a card (docs/cuda.md).
#pragma once

#include <ggml-backend.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace dgemma::cuda {

/// Empty where kernels can be launched; otherwise the sentence that says why not.
std::string why_unavailable();

/// Whether a ggml device computes in a card's memory, so that our kernels can read what its graphs leave.
bool runs_on(ggml_backend_t backend);

/// The same from a device's name, before it is started, for a plan. A card that is not there, "GPU0", counts as one
/// that the kernels run on.
bool would_run_on(const std::string& device);

/// Whether the tensor cores of a backend's card multiply BF16 with F32 sums at their full rate, as those for data
/// centres do (A100, H100, H200, B200); GeForce cards do so at a half. The backend is one that our kernels run on.
bool has_fast_bf16(ggml_backend_t backend);

/// Selects the card whose memory `pointer` is, for this thread. BackendError where it is no card's.
void use_card_of(const void* pointer);

/// Bytes of the current card; BackendError with the size where there are not so many. What is in them is undefined.
void* allocate(size_t n_bytes);
/// Nothing that is queued uses it any more: CUDA may wait for that, and may not.
void release(void* memory) noexcept;

/// A queue of work on the current card; kernels and copies in it run one after the other.
class Stream {
  public:
    /// Where blocks of several queues wait for a multiprocessor, an urgent one's go first.
    explicit Stream(bool is_urgent = false);
    /// Returns when all work in the queue is done.
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    void* handle() const { return handle_; }
    /// Between any two of host and card. The host's memory stays as it is until wait().
    void copy(void* to, const void* from, size_t n_bytes) const;
    /// Every byte becomes `value`.
    void fill(void* memory, int value, size_t n_bytes) const;
    /// What is queued from here on begins when all that `other` was given so far is done.
    void after(const Stream& other) const;
    /// Returns when all work in the queue is done. BackendError if some of it failed.
    void wait() const;

  private:
    void* handle_ = nullptr;
    void* event_ = nullptr;  // marks a place in the queue
};

/// n values of the card's memory.
template <typename T>
class DeviceArray {
  public:
    explicit DeviceArray(size_t n) : data_(static_cast<T*>(allocate(n * sizeof(T)))), size_(n) {}
    ~DeviceArray() { release(data_); }
    DeviceArray(DeviceArray&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;

    T* data() const { return data_; }
    size_t size() const { return size_; }
    uint64_t n_bytes() const { return size_ * sizeof(T); }

  private:
    T* data_;
    size_t size_;
};

}  // namespace dgemma::cuda
