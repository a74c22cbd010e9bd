// The heads' kernel from and to the host's memory, for comparing it with plain arithmetic.
#include "cuda/heads.h"
#include "cuda/host_copies.h"
#include "cuda/rope_turns.h"
#include "dgemma/card_jobs.h"

namespace dgemma {

using namespace cuda;

void run_heads_on_card(const HeadJob& job) {
    if (const std::string why = cuda_unavailable(); !why.empty()) throw BackendError(why);
    const HeadShape shape{job.heads, job.kv_heads, job.head_dim};
    if (!fits(shape)) {
        throw RequestError("CUDA: no kernel for heads of " + std::to_string(job.head_dim) +
                           " values: it takes even numbers up to " + std::to_string(kMaxHeadDim));
    }
    const auto size = [&](int n) { return static_cast<size_t>(n) * static_cast<size_t>(job.head_dim); };
    const auto q = uploaded<float>(job.q, size(job.n * job.heads));
    const auto k = uploaded<float>(job.k, size(job.n * job.kv_heads));
    const auto v = uploaded<float>(job.v, size(job.n * job.kv_heads));
    const auto q_norm = uploaded<float>(job.q_norm, size(1)), k_norm = uploaded<float>(job.k_norm, size(1));
    const std::vector<Turn> angles = rope_turns({job.head_dim, job.base, job.factors}, job.position, job.n);
    const auto turns = uploaded<Turn>(angles.data(), angles.size());
    const size_t n_cached = size(job.n_cells * job.kv_heads);
    const auto keys = uploaded<uint16_t>(job.keys, n_cached), cached = uploaded<uint16_t>(job.values, n_cached);
    const cuda::Stream stream;
    place_heads({q.data(), k.data(), v.data(), q_norm.data(), k_norm.data(), turns.data(), keys.data(), cached.data(),
                 job.position % job.n_cells, job.n_cells},
                shape, job.eps, job.n, stream);
    stream.copy(job.q, q.data(), q.n_bytes());
    stream.copy(job.keys, keys.data(), keys.n_bytes());
    stream.copy(job.values, cached.data(), cached.n_bytes());
    stream.wait();
}

}  // namespace dgemma
