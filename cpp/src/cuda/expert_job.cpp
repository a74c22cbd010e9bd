// The experts' kernels from and to the host's memory, for comparing them with their twin.
#include "cuda/expert_launches.h"
#include "cuda/host_copies.h"
#include "dgemma/card_jobs.h"
#include "support/types.h"

namespace dgemma {
namespace {

using namespace cuda;

ExpertShape shape_of(const ExpertJob& job) { return {job.n_experts, job.n_used, job.hidden, job.ffn}; }

ExpertWeights weights_of(const std::string& type, const DeviceArray<uint8_t>& data, int64_t rows, int64_t columns) {
    const auto n_bytes = static_cast<int64_t>(row_bytes(type, columns));
    return {weight_type(type), data.data(), n_bytes, n_bytes * rows};
}

}  // namespace

ExpertJobResult run_experts_on_card(const ExpertJob& job) {
    if (const std::string why = cuda_unavailable(); !why.empty()) throw BackendError(why);
    const ExpertShape shape = shape_of(job);
    check_fits(shape, job.n_tokens, weight_type(job.gate_up_type), weight_type(job.down_type));
    const auto size = [](int64_t n) { return static_cast<size_t>(n); };
    const size_t n = size(job.n_tokens), experts = size(job.n_experts), hidden = size(job.hidden);
    const size_t n_pairs = n * size(job.n_used), ffn = size(job.ffn);
    const auto logits = uploaded<float>(job.logits, n * experts), scale = uploaded<float>(job.expert_scale, experts);
    const auto x = uploaded<float>(job.x, n * hidden);
    const auto gate_up = uploaded<uint8_t>(job.gate_up, experts * 2 * ffn * row_bytes(job.gate_up_type, job.hidden));
    const auto down = uploaded<uint8_t>(job.down, experts * hidden * row_bytes(job.down_type, job.ffn));
    const DeviceArray<float> sums(n * hidden);
    const Arithmetic arithmetic = job.is_bf16 ? Arithmetic::kBf16 : Arithmetic::kInt8;
    const CardExperts card(shape, job.n_tokens, arithmetic);
    const CardRows rows(arithmetic, job.n_tokens, job.hidden);
    const cuda::Stream stream;
    const ExpertPass pass{shape,
                          job.n_tokens,
                          logits.data(),
                          scale.data(),
                          weights_of(job.gate_up_type, gate_up, 2 * job.ffn, job.hidden),
                          weights_of(job.down_type, down, job.hidden, job.ffn),
                          x.data(),
                          rows.get(),
                          sums.data()};
    for (const ExpertLaunch& launch : launches_of(card, pass)) launch.queue(stream);
    stream.copy(job.sums, sums.data(), sums.n_bytes());
    stream.wait();
    ExpertJobResult result;
    result.experts = downloaded(card.routes().experts, n_pairs);
    result.weights = downloaded(card.routes().weights, n_pairs);
    result.pairs = downloaded(card.order().pairs, n_pairs);
    const int n_tiles = downloaded(card.order().n_tiles, 1).front();
    for (const Tile& tile : downloaded(card.order().tiles, size(n_tiles))) {
        result.tiles.insert(result.tiles.end(), {tile.expert, tile.first, tile.count});
    }
    return result;
}

}  // namespace dgemma
