// Threads of a block as fibers on one stack each (ucontext), switched at barriers only.
#include <ucontext.h>

#include <exception>
#include <memory>
#include <vector>

#include "dgemma/dgemma.h"
#include "runtime.h"

dim3 threadIdx{}, blockIdx{};

namespace dgemma::cuda {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr int kLanes = 32;

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Fiber {
    ucontext_t context{};
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    State state = State::kReady;
    uint64_t given[2] = {};  // to shuffles: even and odd ones
    unsigned n_shuffles = 0;
};

struct Block {
    std::vector<Fiber> fibers;
    ucontext_t scheduler{};
    size_t current = 0;
    size_t n_threads = 0;
    unsigned n_rounds = 0;
    const std::function<void()>* body = nullptr;
    std::exception_ptr error;
};

Block block;

void run_body() {
    try {
        (*block.body)();
    } catch (...) {
        block.error = std::current_exception();
    }
    block.fibers[block.current].state = State::kDone;
    swapcontext(&block.fibers[block.current].context, &block.scheduler);
}

void pause(State state) {
    Fiber& fiber = block.fibers[block.current];
    fiber.state = state;
    swapcontext(&fiber.context, &block.scheduler);
}

void start(Fiber& fiber) {
    fiber.state = State::kReady;
    fiber.n_shuffles = 0;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_body, 0);
}

void resume(size_t i) {
    if (block.fibers[i].state != State::kReady) return;
    block.current = i;
    threadIdx = {static_cast<unsigned>(i), 0, 0};
    swapcontext(&block.scheduler, &block.fibers[i].context);
    if (block.error) std::rethrow_exception(std::exchange(block.error, nullptr));
}

/// Threads first … last - 1 go on if all of them wait at that barrier.
bool release_all(size_t first, size_t last, State barrier) {
    for (size_t i = first; i < last; ++i) {
        if (block.fibers[i].state != barrier) return false;
    }
    for (size_t i = first; i < last; ++i) block.fibers[i].state = State::kReady;
    return true;
}

bool all_done() {
    for (size_t i = 0; i < block.n_threads; ++i) {
        if (block.fibers[i].state != State::kDone) return false;
    }
    return true;
}

/// Every thread as far as it can, from another end each time.
void run_round() {
    const bool forwards = block.n_rounds++ % 3 != 1;
    for (size_t i = 0; i < block.n_threads; ++i) resume(forwards ? i : block.n_threads - 1 - i);
}

void run_block() {
    for (size_t i = 0; i < block.n_threads; ++i) start(block.fibers[i]);
    while (!all_done()) {
        run_round();
        bool released = release_all(0, block.n_threads, State::kAtBlockBarrier);
        for (size_t first = 0; first < block.n_threads; first += kLanes) {
            released |= release_all(first, first + kLanes, State::kAtWarpBarrier);
        }
        if (!released && !all_done()) throw Error("a barrier that not all threads of the block or warp reach");
    }
}

}  // namespace

int lane() { return static_cast<int>(block.current) % kLanes; }

uint64_t exchange(uint64_t value, int from) {
    const size_t warp = block.current / kLanes * kLanes;
    Fiber& fiber = block.fibers[block.current];
    const unsigned which = fiber.n_shuffles++ % 2;  // a lane is at most one shuffle ahead of another
    fiber.given[which] = value;
    pause(State::kAtWarpBarrier);
    return block.fibers[warp + static_cast<size_t>(from)].given[which];
}

void run_blocks(dim3 blocks, int threads, const std::function<void()>& body) {
    block.n_threads = static_cast<size_t>(threads);
    if (block.fibers.size() < block.n_threads) block.fibers = std::vector<Fiber>(block.n_threads);
    block.body = &body;
    for (unsigned y = 0; y < blocks.y; ++y) {
        for (unsigned x = 0; x < blocks.x; ++x) {
            blockIdx = {x, y, 0};
            run_block();
        }
    }
}

}  // namespace dgemma::cuda

void __syncthreads() { dgemma::cuda::pause(dgemma::cuda::State::kAtBlockBarrier); }
