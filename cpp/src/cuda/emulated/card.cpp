// The host's memory in place of a card's.
#include "cuda/card.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <map>
#include <new>

#include "cuda/ggml_order.h"
#include "runtime.h"

namespace dgemma::cuda {
namespace {

constexpr size_t kAlignment = 32;  // the most that a kernel asks; cudaMalloc's is 256
constexpr int kPoison = 0xff;      // NaN and -1: what is read before it is written shows

size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

/// What a stream was given and has not done. A card may begin at once or not before it is waited for; this is the
/// latest, so that a result that is read too early is not there, and the host's memory that a copy reads has to last.
/// But where two streams wait for each other, one that is not urgent is in turn as early and as late as it can be: what
/// it, or the other, should have waited for is not there.
struct Queue {
    bool is_urgent, is_early = false;
    std::deque<std::function<void()>> work;
    size_t n_given = 0, n_begun = 0, n_ordered = 0;
};

std::map<void*, std::pair<void*, size_t>> mappings;  // by address of the memory: what holds it

Queue& queue_of(const Stream& stream) { return *static_cast<Queue*>(stream.handle()); }

/// Does the first n that the queue was ever given, as far as they are not begun.
void finish(Queue& queue, size_t n) {
    while (queue.n_begun < n && !queue.work.empty()) {
        const std::function<void()> next = std::move(queue.work.front());
        queue.work.pop_front();
        ++queue.n_begun;
        try {
            next();
        } catch (...) {  // what comes after a failure is not done
            queue.work.clear();
            queue.n_begun = queue.n_given;
            throw;
        }
    }
}

void finish_quietly(Queue& queue) noexcept {
    try {
        finish(queue, queue.n_given);
    } catch (...) {  // told by wait(), or by nobody, as on a card
    }
}

}  // namespace

std::string why_unavailable() { return ""; }

// ggml's CPU, and the stand-in cards of the tests (tests/engine/standin.cpp), whose memory ggml takes for a card's.
bool would_run_on(const std::string& device) { return device == "CPU" || device.rfind("CARD", 0) == 0; }

bool runs_on(ggml_backend_t backend) { return would_run_on(ggml_backend_dev_name(ggml_backend_get_device(backend))); }

// By its name: the tests have cards of both kinds.
bool has_fast_bf16(ggml_backend_t backend) {
    return std::string(ggml_backend_dev_name(ggml_backend_get_device(backend))).find("BF16") != std::string::npos;
}

void use_card_of(const void* /*pointer*/) {}

/// Its end lies before a page that nobody may touch.
void* allocate(size_t n_bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t taken = round_up(n_bytes, kAlignment), room = round_up(taken, page);
    void* mapping = mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    char* end = static_cast<char*>(mapping) + room;
    mprotect(end, page, PROT_NONE);
    void* memory = end - taken;
    mappings[memory] = {mapping, room + page};
    return std::memset(memory, kPoison, n_bytes);
}

/// cudaFree() may wait for what is going on in it, and may not: what is queued still and touches it ends the process.
void release(void* memory) noexcept {
    const auto found = mappings.find(memory);
    if (found == mappings.end()) return;
    munmap(found->second.first, found->second.second);
    mappings.erase(found);
}

void give(const Stream& stream, std::function<void()> work) {
    Queue& queue = queue_of(stream);
    queue.work.push_back(std::move(work));
    ++queue.n_given;
    if (queue.is_early) finish(queue, queue.n_given);
}

Stream::Stream(bool is_urgent) : handle_(new Queue{is_urgent}) {}

Stream::~Stream() {
    Queue* queue = &queue_of(*this);
    finish_quietly(*queue);
    delete queue;
}

void Stream::copy(void* to, const void* from, size_t n_bytes) const {
    give(*this, [=] { std::memcpy(to, from, n_bytes); });
}

void Stream::fill(void* memory, int value, size_t n_bytes) const {
    give(*this, [=] { std::memset(memory, value, n_bytes); });
}

void Stream::after(const Stream& other) const {
    Queue &before = queue_of(other), &own = queue_of(*this);
    for (Queue* each : {&before, &own}) each->is_early = !each->is_urgent && each->n_ordered++ / 2 % 2 == 0;
    give(*this, [&before, n = before.n_given] { finish(before, n); });
}

void Stream::wait() const { finish(queue_of(*this), queue_of(*this).n_given); }

GgmlOrder::GgmlOrder(ggml_backend_t backend) : backend_(backend), event_(nullptr) {}
GgmlOrder::~GgmlOrder() = default;

void GgmlOrder::after_ggml(const Stream& stream) const {
    give(stream, [backend = backend_] { ggml_backend_synchronize(backend); });
}

// ggml's queue knows nothing of ours.
void GgmlOrder::before_ggml(const Stream& stream) const { stream.wait(); }

}  // namespace dgemma::cuda
