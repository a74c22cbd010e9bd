// Kernels and launches that are broken, each in one way that a card would punish: `cuda_faults NAME` runs one and says
// what came of it. And what the tensor cores' product of bytes makes of matrices that lie in the lanes as the PTX ISA
// says.
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cuda/block.cuh"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

namespace wmma = nvcuda::wmma;

void nothing(int* /*to*/) {}

void barrier_of_half(int* to) {
    if (threadIdx.x < 128) __syncthreads();
    to[threadIdx.x] = 1;
}

void barrier_at_two_places(int* to) {
    if (threadIdx.x < 128) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    to[threadIdx.x] = 1;
}

void shuffle_of_some_lanes(int* to) {
    if (threadIdx.x % kWarp < 30) to[threadIdx.x] = __shfl_sync(kAllLanes, 1, 0);
}

void shuffles_at_two_places(int* to) {
    int value;
    if (threadIdx.x % kWarp < 16) {
        value = __shfl_sync(kAllLanes, 1, 0);
    } else {
        value = __shfl_sync(kAllLanes, 2, 16);
    }
    to[threadIdx.x] = value;
}

void misaligned_vector(int* to) { *reinterpret_cast<uint4*>(to + 1) = {1, 2, 3, 4}; }

void misaligned_word(int* to) { *reinterpret_cast<unsigned*>(reinterpret_cast<char*>(to) + 2) = 1; }

void past_the_end(int* to) { to[0] = to[kThreads + 1]; }

void past_shared_memory(int* to) {
    __shared__ int shared[kThreads];
    shared[threadIdx.x + to[kThreads - 1]] = 1;  // which is 1 until the last thread changes it
    to[threadIdx.x] = shared[threadIdx.x];
}

void overflow(int* to) { to[threadIdx.x] = to[0] * 65536 * 65536; }

void unaligned_matrix(int* to) {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;
    wmma::fill_fragment(sums, 0.0f);
    wmma::store_matrix_sync(reinterpret_cast<float*>(to) + 4, sums, 8, wmma::mem_row_major);
}

void unaligned_rows_of_matrix(int* to) {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;
    wmma::fill_fragment(sums, 0.0f);
    wmma::store_matrix_sync(reinterpret_cast<float*>(to), sums, 9, wmma::mem_row_major);
}

void different_matrices(int* to) {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;
    wmma::fill_fragment(sums, 0.0f);
    wmma::store_matrix_sync(reinterpret_cast<float*>(to) + threadIdx.x % 2 * 8, sums, 8, wmma::mem_row_major);
}

void unaligned_copy(int* to) {
    alignas(16) static char shared[32];
    copy_async<16>(shared_address(shared), to + 1);
}

void ones(int* to) { to[threadIdx.x] = 1; }

void needs_the_block_before(int* to) {
    const int block = static_cast<int>(blockIdx.x);
    if (threadIdx.x == 0) to[block] = block == 0 ? 1 : to[block - 1] + 1;
}

using Kernel = void (*)(int*);

void run(Kernel kernel, int rows = 1, int threads = kThreads) {
    const DeviceArray<int> memory(kThreads);
    const cuda::Stream stream;
    const std::vector<int> first(kThreads, 1);
    stream.copy(memory.data(), first.data(), memory.n_bytes());
    launch(kernel, grid(1, rows), threads, stream, memory.data());
    stream.wait();
}

/// What the host has of a result.
int taken(bool waits) {
    const DeviceArray<int> memory(kThreads);
    const cuda::Stream stream;
    int host = 0;
    launch(ones, grid(1, 1), kThreads, stream, memory.data());
    stream.copy(&host, memory.data(), sizeof host);
    if (waits) stream.wait();
    return host;
}

/// What one queue has of another's result.
int taken_beside(bool is_after) {
    const DeviceArray<int> memory(kThreads);
    int host = 0;
    const cuda::Stream beside, stream;
    launch(ones, grid(1, 1), kThreads, beside, memory.data());
    if (is_after) stream.after(beside);
    stream.copy(&host, memory.data(), sizeof host);
    stream.wait();
    return host;
}

/// What the host has of a queue's result that follows another, without waiting for either.
int taken_of_a_follower(bool is_urgent) {
    const DeviceArray<int> memory(kThreads);
    int host = 0;
    const cuda::Stream first, follower(is_urgent);
    launch(ones, grid(1, 1), kThreads, first, memory.data());
    follower.after(first);
    follower.copy(&host, memory.data(), sizeof host);
    return host;
}

/// What a card has of a number that the host changes.
int given(bool waits) {
    const DeviceArray<int> memory(1);
    const cuda::Stream stream;
    int from = 1, back = 0;
    stream.copy(memory.data(), &from, sizeof from);
    if (waits) stream.wait();
    from = 2;
    stream.copy(&back, memory.data(), sizeof back);
    stream.wait();
    return back;
}

// PTX ISA 9.0, 9.7.14.5.10: where a lane's byte i of each operand, or its sum i, lies in the matrices.
struct Cell {
    int row, column;
};
Cell cell_of_a(int lane, int i) {
    return {lane / 4 + (i < 4 || (8 <= i && i < 12) ? 0 : 8), lane % 4 * 4 + (i & 3) + (i < 8 ? 0 : 16)};
}
Cell cell_of_b(int lane, int i) { return {lane % 4 * 4 + (i & 3) + (i < 4 ? 0 : 16), lane / 4}; }
Cell cell_of_sum(int lane, int i) { return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + (i & 1)}; }

int a_at(Cell cell) { return (cell.row * 37 + cell.column * 11) % 255 - 127; }
int b_at(Cell cell) { return (cell.row * 53 + cell.column * 29) % 255 - 127; }

unsigned byte(int value, int i) { return static_cast<unsigned>(value & 255) << (8 * (i % 4)); }

void multiply_by_the_table(int* wrong) {
    const int own = lane();
    unsigned a[4] = {};
    uint2 b{0, 0};
    for (int i = 0; i < 16; ++i) a[i / 4] |= byte(a_at(cell_of_a(own, i)), i);
    for (int i = 0; i < 8; ++i) (i < 4 ? b.x : b.y) |= byte(b_at(cell_of_b(own, i)), i);
    int sums[4] = {1, 2, 3, 4};
    multiply_int8(a, b, sums);
    wrong[threadIdx.x] = 0;
    for (int i = 0; i < 4; ++i) {
        const Cell at = cell_of_sum(own, i);
        int sum = i + 1;
        for (int k = 0; k < 32; ++k) sum += a_at({at.row, k}) * b_at({k, at.column});
        wrong[threadIdx.x] += sum != sums[i] ? 1 : 0;
    }
}

// The same, 9.7.14.5.8, of two BF16 to a word.
Cell cell_of_bf16_a(int lane, int i) {
    return {lane / 4 + (i < 2 || (4 <= i && i < 6) ? 0 : 8), lane % 4 * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Cell cell_of_bf16_b(int lane, int i) { return {lane % 4 * 2 + (i & 1) + (i < 2 ? 0 : 8), lane / 4}; }

unsigned bf16(int value, int i) {
    const auto number = static_cast<float>(value);  // of 8 bits: exact
    return i % 2 == 0 ? bf16_pair(number, 0) : bf16_pair(0, number);
}

void multiply_bf16_by_the_table(int* wrong) {
    const int own = lane();
    unsigned a[4] = {};
    uint2 b{0, 0};
    for (int i = 0; i < 8; ++i) a[i / 2] |= bf16(a_at(cell_of_bf16_a(own, i)), i);
    for (int i = 0; i < 4; ++i) (i < 2 ? b.x : b.y) |= bf16(b_at(cell_of_bf16_b(own, i)), i);
    float sums[4] = {1, 2, 3, 4};
    multiply_bf16(a, b, sums);
    wrong[threadIdx.x] = 0;
    for (int i = 0; i < 4; ++i) {
        const Cell at = cell_of_sum(own, i);
        int sum = i + 1;
        for (int k = 0; k < 16; ++k) sum += a_at({at.row, k}) * b_at({k, at.column});
        wrong[threadIdx.x] += static_cast<float>(sum) != sums[i] ? 1 : 0;
    }
}

/// Of 128 sums.
int wrong_sums(Kernel multiply) {
    const DeviceArray<int> memory(kWarp);
    const cuda::Stream stream;
    std::vector<int> wrong(kWarp);
    launch(multiply, grid(1, 1), kWarp, stream, memory.data());
    stream.copy(wrong.data(), memory.data(), memory.n_bytes());
    stream.wait();
    int all = 0;
    for (const int n : wrong) all += n;
    return all;
}

/// The last of eight blocks that count, in as many launches.
std::string counted(int n_launches) {
    std::string found;
    for (int i = 0; i < n_launches; ++i) {
        const DeviceArray<int> memory(kThreads);
        const cuda::Stream stream;
        int last = 0;
        stream.fill(memory.data(), 0, memory.n_bytes());
        launch(needs_the_block_before, grid(8, 1), kWarp, stream, memory.data());
        stream.copy(&last, memory.data() + 7, sizeof last);
        stream.wait();
        found += std::to_string(last) + " ";
    }
    return found;
}

void say(int number) { std::printf("%d", number); }

const std::map<std::string, std::function<void()>> faults{
    {"barrier_of_half", [] { run(barrier_of_half); }},
    {"barrier_at_two_places", [] { run(barrier_at_two_places); }},
    {"shuffle_of_some_lanes", [] { run(shuffle_of_some_lanes); }},
    {"shuffles_at_two_places", [] { run(shuffles_at_two_places); }},
    {"misaligned_vector", [] { run(misaligned_vector); }},
    {"misaligned_word", [] { run(misaligned_word); }},
    {"past_the_end", [] { run(past_the_end); }},
    {"past_shared_memory", [] { run(past_shared_memory); }},
    {"overflow", [] { run(overflow); }},
    {"unaligned_matrix", [] { run(unaligned_matrix); }},
    {"unaligned_rows_of_matrix", [] { run(unaligned_rows_of_matrix); }},
    {"different_matrices", [] { run(different_matrices); }},
    {"unaligned_copy", [] { run(unaligned_copy); }},
    {"no_blocks", [] { run(nothing, 0); }},
    {"too_many_rows", [] { run(nothing, 65536); }},
    {"half_a_warp", [] { run(nothing, 1, 272); }},
    {"most_rows", [] { run(nothing, 65535, kWarp); }},
    {"needs_the_block_before", [] { std::printf("%s", counted(2).c_str()); }},
    {"follower", [] { say(taken_of_a_follower(false)); }},
    {"urgent_follower", [] { say(taken_of_a_follower(true)); }},
    {"result_beside", [] { say(taken_beside(true)); }},
    {"result_beside_too_early", [] { say(taken_beside(false)); }},
    {"wrong_sums", [] { say(wrong_sums(multiply_by_the_table)); }},
    {"wrong_bf16_sums", [] { say(wrong_sums(multiply_bf16_by_the_table)); }},
    {"result", [] { say(taken(true)); }},
    {"result_too_early", [] { say(taken(false)); }},
    {"source", [] { say(given(true)); }},
    {"source_changed", [] { say(given(false)); }},
};

}  // namespace
}  // namespace dgemma::cuda

int main(int /*argc*/, char** argv) {
    try {
        dgemma::cuda::faults.at(argv[1])();
    } catch (const dgemma::Error& error) {
        std::printf("%s", error.what());
    }
}
