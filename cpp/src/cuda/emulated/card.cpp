// The host's memory in place of a card's.
#include "cuda/card.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "cuda/ggml_order.h"

namespace dgemma::cuda {
namespace {

constexpr size_t kAlignment = 256;  // cudaMalloc's
constexpr int kPoison = 0xff;       // NaN and -1: what is read before it is written shows

}  // namespace

std::string why_unavailable() { return ""; }

// ggml's CPU, and the stand-in cards of the tests (tests/engine/standin.cpp), whose memory ggml takes for a card's.
bool would_run_on(const std::string& device) { return device == "CPU" || device.rfind("CARD", 0) == 0; }

bool runs_on(ggml_backend_t backend) { return would_run_on(ggml_backend_dev_name(ggml_backend_get_device(backend))); }

void use_card_of(const void* /*pointer*/) {}

void* allocate(size_t n_bytes) {
    void* memory = std::aligned_alloc(kAlignment, (n_bytes + kAlignment - 1) / kAlignment * kAlignment);
    if (memory == nullptr) throw std::bad_alloc();
    return std::memset(memory, kPoison, n_bytes);
}

void release(void* memory) noexcept { std::free(memory); }

Stream::Stream() = default;
Stream::~Stream() = default;

void Stream::copy(void* to, const void* from, size_t n_bytes) const { std::memcpy(to, from, n_bytes); }

void Stream::fill(void* memory, int value, size_t n_bytes) const { std::memset(memory, value, n_bytes); }

void Stream::wait() const {}

// A stream's work is done when it is given.
GgmlOrder::GgmlOrder(ggml_backend_t backend) : backend_(backend), event_(nullptr) {}
GgmlOrder::~GgmlOrder() = default;

void GgmlOrder::after_ggml(const Stream& /*stream*/) const { ggml_backend_synchronize(backend_); }

void GgmlOrder::before_ggml(const Stream& /*stream*/) const {}

}  // namespace dgemma::cuda
