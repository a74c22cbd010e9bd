// Threads of a block as fibers, switched at barriers only. Each is begun once, by ucontext, and from then on switched
// to by longjmp, which unlike swapcontext asks nothing of the kernel.
#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dgemma/dgemma.h"
#include "runtime.h"

dim3 threadIdx{}, blockIdx{}, gridDim{};

namespace dgemma::cuda {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kLanes = 32;
constexpr size_t kMostShared = 227 << 10;  // of sm_90; dynamic_shared() is for kernels that ask which card it is

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Copy {
    void* to;
    const void* from;
    size_t n_bytes;
    unsigned group;
};

struct Fiber {
    ucontext_t beginning{};
    jmp_buf here{};
    bool begun = false;
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    State state = State::kDone;
    Place place{};           // where it waits
    uint64_t given[2] = {};  // to shuffles: even and odd ones
    unsigned n_shuffles = 0;
    std::vector<Copy> copies;  // that are not done yet
    unsigned n_groups = 0;     // of copies, committed
};

struct Block {
    std::vector<Fiber> fibers;
    jmp_buf scheduler{};
    size_t current = 0;
    size_t n_threads = 0;
    unsigned n_turns = 0, n_copies = 0, n_launches = 0;
    const std::function<void()>* body = nullptr;
    DeviceArray<unsigned char>* shared = nullptr;  // what the launch asked for
    std::exception_ptr error;
};

Block block;

void pause(State state, Place place = here()) {
    Fiber& fiber = block.fibers[block.current];
    fiber.state = state;
    fiber.place = place;
    if (_setjmp(fiber.here) == 0) _longjmp(block.scheduler, 1);
}

/// A fiber's life: the same thread of one block after the other.
void run_bodies() {
    while (true) {
        try {
            (*block.body)();
        } catch (...) {
            block.error = std::current_exception();
        }
        pause(State::kDone);
    }
}

void begin(Fiber& fiber) {
    fiber.begun = true;
    getcontext(&fiber.beginning);
    fiber.beginning.uc_stack.ss_sp = fiber.stack.get();
    fiber.beginning.uc_stack.ss_size = kStackBytes;
    fiber.beginning.uc_link = nullptr;
    makecontext(&fiber.beginning, run_bodies, 0);
    setcontext(&fiber.beginning);
}

void resume(size_t i) {
    Fiber& fiber = block.fibers[i];
    if (fiber.state != State::kReady) return;
    block.current = i;
    threadIdx = {static_cast<unsigned>(i), 0, 0};
    if (_setjmp(block.scheduler) != 0) return;  // back from pause()
    if (!fiber.begun) begin(fiber);
    _longjmp(fiber.here, 1);
}

/// The waiting fibers can never go on: a kernel that does this is broken, and so is its emulation from here on.
[[noreturn]] void fail(const std::string& why) {
    block.fibers.clear();
    throw Error(why);
}

std::string text(Place place) {
    const std::string path = place.file;
    return path.substr(path.rfind('/') + 1) + ":" + std::to_string(place.line);
}

/// Threads first … last - 1 go on if all of them wait at that barrier.
bool release_all(size_t first, size_t last, State barrier) {
    for (size_t i = first; i < last; ++i) {
        if (block.fibers[i].state != barrier) return false;
    }
    const Place place = block.fibers[first].place;
    for (size_t i = first; i < last; ++i) {
        const Place other = block.fibers[i].place;
        if (other.line == place.line && std::strcmp(other.file, place.file) == 0) continue;
        fail("threads that wait for each other at different places: " + text(place) + " and " + text(other));
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

/// A warp as far as its threads get without the others; its lanes from another end each time.
void run_warp(size_t first) {
    do {
        const bool forwards = block.n_turns++ % 3 != 1;
        for (size_t i = 0; i < kLanes; ++i) resume(first + (forwards ? i : kLanes - 1 - i));
    } while (release_all(first, first + kLanes, State::kAtWarpBarrier));
}

/// One warp after the other, each up to the next barrier of the block and beginning with another one each time: where a
/// barrier is missing, a warp overtakes those that still read what it writes, or reads what is not yet written.
void run_round() {
    const size_t n_warps = block.n_threads / kLanes, offset = block.n_turns % n_warps;
    for (size_t i = 0; i < n_warps; ++i) run_warp((i + offset) % n_warps * kLanes);
    if (!block.error) return;
    block.fibers.clear();  // others stand in the middle of the kernel
    std::rethrow_exception(std::exchange(block.error, nullptr));
}

void run_block() {
    for (size_t i = 0; i < block.n_threads; ++i) {
        block.fibers[i].state = State::kReady;
        block.fibers[i].n_shuffles = 0;
        block.fibers[i].copies.clear();
        block.fibers[i].n_groups = 0;
    }
    while (!all_done()) {
        run_round();
        if (!release_all(0, block.n_threads, State::kAtBlockBarrier) && !all_done()) {
            fail("a barrier that not all threads of the block or warp reach");
        }
    }
}

}  // namespace

int lane() { return static_cast<int>(block.current % kLanes); }

uint64_t exchange(uint64_t value, int from, Place place) {
    const size_t warp = block.current / kLanes * kLanes;
    Fiber& fiber = block.fibers[block.current];
    const unsigned which = fiber.n_shuffles++ % 2;  // a lane is at most one shuffle ahead of another
    fiber.given[which] = value;
    pause(State::kAtWarpBarrier, place);
    return block.fibers[warp + static_cast<size_t>(from)].given[which];
}

void check_matrix(const void* at, size_t row_bytes, Place place) {
    const auto address = reinterpret_cast<uintptr_t>(at);
    const bool is_same = exchange(address, 0, place) == address && exchange(row_bytes, 0, place) == row_bytes;
    if (!is_same) throw Error("lanes that load or store different matrices together");
    if (address % 32 != 0 || row_bytes % 16 != 0) throw Error("a matrix that the tensor cores cannot take");
}

void begin_copy(void* to, const void* from, size_t n_bytes) {
    const auto is_aligned = [&](const void* at) { return reinterpret_cast<uintptr_t>(at) % n_bytes == 0; };
    if (!is_aligned(to) || !is_aligned(from)) throw Error("an asynchronous copy of addresses that it cannot take");
    Fiber& fiber = block.fibers[block.current];
    if (block.n_copies++ % 2 == 0) {
        std::memcpy(to, from, n_bytes);
    } else {
        fiber.copies.push_back({to, from, n_bytes, fiber.n_groups});
    }
}

const uint32_t (&show_warp(const uint32_t (&ours)[6])) [kLanes * 6] {
    static uint32_t shown[2][kLanes * 6];
    const unsigned which = block.fibers[block.current].n_shuffles % 2;  // as in exchange()
    std::memcpy(shown[which] + block.current % kLanes * 6, ours, sizeof ours);
    exchange(0, lane(), here());
    return shown[which];
}

void check_launch(dim3 blocks, int threads, size_t n_shared) {
    if (n_shared > kMostShared) throw Error("more shared memory than a card has: " + std::to_string(n_shared));
    const auto is_within = [](unsigned n, unsigned most) { return n >= 1 && n <= most; };
    if (is_within(blocks.x, INT32_MAX) && is_within(blocks.y, UINT16_MAX) && is_within(blocks.z, UINT16_MAX) &&
        threads >= 1 && threads <= 1024 && static_cast<size_t>(threads) % kLanes == 0) {
        return;
    }
    throw Error("a kernel could not be launched: " + std::to_string(blocks.x) + " x " + std::to_string(blocks.y) +
                " blocks of " + std::to_string(threads) + " threads");
}

void wait_for_block(Place place) { pause(State::kAtBlockBarrier, place); }

void* shared_memory(size_t n_bytes) {
    if (block.shared == nullptr || block.shared->size() != n_bytes)
        throw Error("shared memory that the launch did not ask for");
    return block.shared->data();
}

unsigned char* dynamic_bytes() {
    if (block.shared == nullptr) throw Error("shared memory that the launch did not ask for");
    return block.shared->data();
}

size_t most_shared() { return kMostShared; }

void run_blocks(dim3 blocks, int threads, size_t n_shared, const std::function<void()>& body) {
    std::optional<DeviceArray<unsigned char>> shared;  // not longer: the card's memory may end before `block` does
    if (n_shared > 0) shared.emplace(n_shared);
    block.shared = shared ? &*shared : nullptr;
    block.n_threads = static_cast<size_t>(threads);
    if (block.fibers.size() < block.n_threads) block.fibers = std::vector<Fiber>(block.n_threads);
    block.body = &body;
    gridDim = blocks;
    const unsigned n = blocks.x * blocks.y;
    const bool forwards = block.n_launches++ % 2 == 0;  // no block may need another's work
    for (unsigned i = 0; i < n; ++i) {
        const unsigned place = forwards ? i : n - 1 - i;
        blockIdx = {place % blocks.x, place / blocks.x, 0};
        run_block();
    }
}

}  // namespace dgemma::cuda

void __pipeline_commit() { ++dgemma::cuda::block.fibers[dgemma::cuda::block.current].n_groups; }

void __pipeline_wait_prior(unsigned n_groups) {
    dgemma::cuda::Fiber& fiber = dgemma::cuda::block.fibers[dgemma::cuda::block.current];
    std::vector<dgemma::cuda::Copy> later;
    for (const dgemma::cuda::Copy& copy : fiber.copies) {
        if (copy.group + n_groups < fiber.n_groups) {
            std::memcpy(copy.to, copy.from, copy.n_bytes);
        } else {
            later.push_back(copy);
        }
    }
    fiber.copies = std::move(later);
}
