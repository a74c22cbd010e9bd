#include "cuda/block.cuh"
#include "cuda/masks.h"

namespace dgemma::cuda {
namespace {

constexpr int kVectorCells = 8;  // a thread's: 16 bytes
constexpr unsigned kSeen = 0x0000u, kHidden = 0xfc00u;

/// Of one query: the positions oldest … end - 1.
struct Sight {
    int oldest, end, cells;

    /// The last position before the end that is in this cell, or one before 0.
    __device__ unsigned bits(int cell) const {
        const int last = (end - 1) % cells;
        const int position = end - 1 - (last - cell) - (cell > last ? cells : 0);
        return position >= oldest ? kSeen : kHidden;
    }
};

__device__ Sight sight_of(const MaskShape& shape, int query) {
    const int own = shape.n_past + query, end = shape.is_causal ? own + 1 : shape.n_past + shape.n;
    const int first = (shape.is_causal ? own : shape.n_past) - (shape.window - 1);
    return {shape.window == 0 || first < 0 ? 0 : first, end, shape.cells};
}

__global__ void __launch_bounds__(kThreads) write_row(MaskShape shape, uint4* mask) {
    const int vectors = shape.keys / kVectorCells, query = static_cast<int>(blockIdx.y);
    const int vector = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
    if (vector >= vectors) return;
    const Sight sight = sight_of(shape, query);
    unsigned words[kVectorCells / 2];
#pragma unroll
    for (int i = 0; i < kVectorCells / 2; ++i) {
        const int cell = vector * kVectorCells + 2 * i;
        words[i] = query < shape.n ? sight.bits(cell) | sight.bits(cell + 1) << 16 : kHidden | kHidden << 16;
    }
    mask[static_cast<int64_t>(query) * vectors + vector] = {words[0], words[1], words[2], words[3]};
}

}  // namespace

void write_mask(const MaskShape& shape, uint16_t* mask, const Stream& stream) {
    const int vectors = shape.keys / kVectorCells;
    launch(write_row, grid((vectors + kThreads - 1) / kThreads, shape.padded), kThreads, stream, shape,
           reinterpret_cast<uint4*>(mask));
}

}  // namespace dgemma::cuda
