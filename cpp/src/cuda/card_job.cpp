// The kernels from and to the host's memory, for comparing them with their twins.
#include <algorithm>

#include "cuda/card_step.h"
#include "cuda/host_copies.h"
#include "dgemma/card_jobs.h"
#include "support/types.h"

namespace dgemma {
namespace {

using namespace cuda;

StepShape shape_of(const CardJob& job) {
    const int n_tokens = std::max(job.canvas, static_cast<int>(job.tokens.size()));
    return {{job.canvas, job.n_vocab, job.soft_cap}, static_cast<int>(job.n_cols), n_tokens, job.is_buffered};
}

void check(const CardJob& job) {
    if (const std::string why = cuda_unavailable(); !why.empty()) throw BackendError(why);
    if (!(job.temperature > 0)) throw RequestError("the temperature must be above 0");
    check_fits(shape_of(job));
    if (job.max_kept < 1) throw RequestError("max_kept must be at least 1");
    if (!has_conditioning(weight_type(job.type))) {
        throw RequestError("CUDA: no kernel reads an embedding of type " + job.type);
    }
    const auto is_bad = [&](int32_t token) { return token < 0 || token >= job.n_vocab; };
    if (std::any_of(job.tokens.begin(), job.tokens.end(), is_bad))
        throw RequestError("a token is not in the vocabulary");
}

/// Has `fill` write n rows of the step's results and takes them to the host.
template <typename Fill>
void take_rows(const CardJob& job, const CardStep& card, size_t n, float* to, Fill fill) {
    const size_t n_values = n * static_cast<size_t>(job.n_cols);
    if (job.is_buffered) {
        fill(to);
        return card.wait();
    }
    const DeviceArray<float> on_card(n_values);
    fill(on_card.data());
    card.wait();
    const cuda::Stream stream;
    stream.copy(to, on_card.data(), n_values * sizeof(float));
    stream.wait();
}

}  // namespace

std::string cuda_unavailable() { return why_unavailable(); }

CardJobResult run_on_card(const CardJob& job) {
    check(job);
    const size_t n_logits = static_cast<size_t>(job.canvas) * static_cast<size_t>(job.n_vocab);
    const uint64_t n_bytes = row_bytes(job.type, job.n_cols);
    const DeviceArray<char> embedding = uploaded<char>(job.embedding, static_cast<size_t>(job.n_vocab) * n_bytes);
    CardStep card(shape_of(job),
                  {weight_type(job.type), reinterpret_cast<const uint8_t*>(embedding.data()),
                   static_cast<int64_t>(n_bytes), static_cast<int>(job.n_cols)},
                  job.dropped_mass, job.max_kept);
    const StepRequest request{job.temperature, job.entropy_bound, {job.seed, job.step, job.block}};
    if (job.before != nullptr) {
        const DeviceArray<char> before = uploaded<char>(job.before, n_logits * sizeof(float));
        card.sample(reinterpret_cast<const float*>(before.data()), request);
    }
    const DeviceArray<char> logits = uploaded<char>(job.logits, n_logits * sizeof(float));
    CardJobResult result;
    result.step = card.sample(reinterpret_cast<const float*>(logits.data()), request);
    take_rows(job, card, static_cast<size_t>(job.canvas), job.soft, [&](float* to) { card.self_conditioning(to); });
    const std::vector<int32_t>& tokens = job.tokens.empty() ? result.step.next_canvas : job.tokens;
    take_rows(job, card, tokens.size(), job.rows, [&](float* to) { card.embed(tokens, to); });
    result.mean_entropy = card.summary().mean_entropy;
    result.unchanged = card.summary().unchanged != 0;
    result.n_flat = card.n_flat();
    result.canvas_on_card.resize(static_cast<size_t>(job.canvas));
    const cuda::Stream stream;
    stream.copy(result.canvas_on_card.data(), card.next_canvas(), static_cast<size_t>(job.canvas) * sizeof(int32_t));
    stream.wait();
    return result;
}

}  // namespace dgemma
