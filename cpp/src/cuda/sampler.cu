#include "cuda/chunk.cuh"
#include "cuda/sampler.h"

namespace dgemma::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) summarise_chunks(LogitRows rows, int n_chunks, ChunkStats* stats) {
    const int chunk = static_cast<int>(blockIdx.x), row = static_cast<int>(blockIdx.y);
    float x[kPerThread];
    load_chunk(rows, row, chunk, x);
    Found best{-INFINITY, token_of(chunk, 0)};
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        if (x[i] > best.value) best = {x[i], token_of(chunk, i)};
    }
    best = block_reduce(best, Greater());
    const float base = best.value == -INFINITY ? 0.0f : best.value;
    float mass = 0, weighted = 0;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        const float d = exponent(rows, x[i], base), e = __expf(d);
        mass += e;
        weighted += e * (d < -88.0f ? -88.0f : d);  // e is 0 there: not 0 times infinity
    }
    mass = block_reduce(mass, Sum());
    weighted = block_reduce(weighted, Sum());
    if (threadIdx.x == 0) stats[row * n_chunks + chunk] = {best.value, best.index, mass, weighted};
}

/// The chunk in which a row's draw lies, and the mass before it.
struct Place {
    int chunk;
    double before, total;
};

/// The first chunk whose mass, together with that before it, exceeds u times the total; the last one if rounding leaves
/// none.
__device__ Place find_chunk(const double* masses, int n_chunks, double u) {
    Place place{0, 0, 0};
    for (int chunk = 0; chunk < n_chunks; ++chunk) place.total += masses[chunk];
    while (place.chunk + 1 < n_chunks && !(place.before + masses[place.chunk] > u * place.total)) {
        place.before += masses[place.chunk++];
    }
    return place;
}

/// The first token of a chunk at which the cumulative mass exceeds the target; the last with any mass where rounding
/// leaves none, and `fallback` where there is no mass.
__device__ int draw_in_chunk(const LogitRows& rows, int row, const Place& place, float max, double target,
                             int fallback) {
    float x[kPerThread];
    load_chunk(rows, row, place.chunk, x);
    double before = place.before;
    int first = rows.n_vocab, last = -1;
    for (int i = 0; i < kPerThread; i += kVector) {
        double mass = 0;
        for (int k = 0; k < kVector; ++k) mass += __expf(exponent(rows, x[i + k], max));
        const Prefix<double> prefix = block_prefix(mass);
        double cumulative = before + (prefix.through - mass);
        for (int k = 0; k < kVector; ++k) {
            const float e = __expf(exponent(rows, x[i + k], max));
            cumulative += e;
            if (!(e > 0)) continue;
            last = token_of(place.chunk, i + k);
            if (cumulative > target && first == rows.n_vocab) first = last;
        }
        before += prefix.total;
    }
    first = block_reduce(first, Smaller());
    last = -block_reduce(-last, Smaller());
    return first < rows.n_vocab ? first : last >= 0 ? last : fallback;
}

__global__ void __launch_bounds__(kThreads)
    finish_rows(LogitRows rows, int n_chunks, const ChunkStats* stats, StepSite site, RowState* states) {
    __shared__ double masses[kMaxChunks];
    __shared__ Place place;
    const int row = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
    stats += row * n_chunks;
    Found best{stats[0].max, stats[0].argmax};
    for (int chunk = thread; chunk < n_chunks; chunk += kThreads) {
        best = Greater()(best, {stats[chunk].max, stats[chunk].argmax});
    }
    best = block_reduce(best, Greater());
    double weighted = 0;
    for (int chunk = thread; chunk < n_chunks; chunk += kThreads) {
        const ChunkStats part = stats[chunk];
        const double shift = exponent(rows, part.max, best.value), scale = exp(shift);
        // A chunk without mass has nothing to add; its maximum may be -infinity.
        masses[chunk] = part.mass == 0 ? 0.0 : part.mass * scale;
        weighted += part.mass == 0 || scale == 0 ? 0.0 : (part.weighted + part.mass * shift) * scale;
    }
    weighted = block_reduce(weighted, Sum());
    const double u = draw_at(site, row);
    if (thread == 0) place = find_chunk(masses, n_chunks, u);
    __syncthreads();
    const int sampled = draw_in_chunk(rows, row, place, best.value, u * place.total, best.index);
    if (thread > 0) return;
    const double entropy = log(place.total) - weighted / place.total;  // NaN of a total of 0 or NaN
    const float inverse = static_cast<float>(1.0 / place.total);
    states[row] = {entropy <= 0 ? 0.0 : entropy, best.value, inverse, best.index, entropy == entropy ? sampled : 0};
}

/// Entropies in an order that integers compare: not negative, so their bits grow with them; NaN is above all.
__device__ uint64_t sort_key(double entropy) { return static_cast<uint64_t>(__double_as_longlong(entropy)); }

/// order [canvas]: positions by entropy, equal ones by position. Each finds its place by counting: at most 1024 keys.
__device__ void sort_positions(const uint64_t* keys, int canvas, int* order) {
    for (int i = static_cast<int>(threadIdx.x); i < canvas; i += kThreads) {
        int rank = 0;
        for (int k = 0; k < canvas; ++k) rank += keys[k] < keys[i] || (keys[k] == keys[i] && k < i) ? 1 : 0;
        order[rank] = i;
    }
    __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    accept_positions(LogitRows rows, StepSite site, double entropy_bound, const RowState* states, int32_t* argmax,
                     int32_t* next_canvas, PositionResult* results, StepSummary* summary) {
    __shared__ uint64_t keys[kMaxCanvas];
    __shared__ int order[kMaxCanvas];
    __shared__ int accepted[kMaxCanvas];
    const int thread = static_cast<int>(threadIdx.x), canvas = rows.canvas;
    for (int i = thread; i < canvas; i += kThreads) {
        keys[i] = sort_key(states[i].entropy);
        accepted[i] = 0;
    }
    __syncthreads();
    sort_positions(keys, canvas, order);
    if (thread == 0) {  // in this order and no other: sums of the twin
        double earlier = 0;
        for (int i = 0; i < canvas && !(earlier > entropy_bound); ++i) {
            accepted[order[i]] = 1;
            earlier += states[order[i]].entropy;
        }
    }
    __syncthreads();
    double sum = 0;
    int changed = 0, first_nan = canvas;
    for (int i = thread; i < canvas; i += kThreads) {
        const RowState state = states[i];
        const float entropy = static_cast<float>(state.entropy);
        const int32_t next = accepted[i] != 0 ? state.sampled : noise_at(site, i, rows.n_vocab);
        results[i] = {state.argmax, state.sampled, next, entropy, accepted[i]};
        next_canvas[i] = next;
        sum += entropy;
        changed += argmax[i] != state.argmax ? 1 : 0;
        argmax[i] = state.argmax;
        if (entropy != entropy && i < first_nan) first_nan = i;
    }
    sum = block_reduce(sum, Sum());
    changed = block_reduce(changed, Sum());
    first_nan = block_reduce(first_nan, Smaller());
    if (thread == 0) *summary = {sum / canvas, first_nan, changed == 0 ? 1 : 0};
}

}  // namespace

void summarise_rows(const LogitRows& rows, const StepSite& site, ChunkStats* stats, RowState* states,
                    const Stream& stream) {
    const int n_chunks = rows.n_chunks();
    launch(summarise_chunks, grid(n_chunks, rows.canvas), kThreads, stream, rows, n_chunks, stats);
    launch(finish_rows, grid(rows.canvas, 1), kThreads, stream, rows, n_chunks, stats, site, states);
}

void accept_and_renoise(const LogitRows& rows, const StepSite& site, double entropy_bound, const RowState* states,
                        int32_t* argmax, int32_t* next_canvas, PositionResult* results, StepSummary* summary,
                        const Stream& stream) {
    launch(accept_positions, grid(1, 1), kThreads, stream, rows, site, entropy_bound, states, argmax, next_canvas,
           results, summary);
}

}  // namespace dgemma::cuda
