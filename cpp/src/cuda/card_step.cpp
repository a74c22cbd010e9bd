#include "cuda/card_step.h"

#include <cmath>
#include <cstring>

#include "cuda/token_rows.h"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

size_t size(int n) { return static_cast<size_t>(n); }

size_t round_up(int n, int step) { return size((n + step - 1) / step * step); }

size_t n_chunks(const LogitShape& logits) { return size((logits.vocab + kChunk - 1) / kChunk); }

/// The results of a step as the host has them.
SamplerStep to_step(const PositionResult* results, int canvas) {
    SamplerStep step;
    for (int i = 0; i < canvas; ++i) {
        const PositionResult& result = results[i];
        step.argmax.push_back(result.argmax);
        step.sampled.push_back(result.sampled);
        step.next_canvas.push_back(result.next);
        step.entropy.push_back(result.entropy);
        step.accepted.push_back(result.accepted != 0);
    }
    return step;
}

}  // namespace

bool fits(const StepShape& shape) {
    const LogitShape& logits = shape.logits;
    return logits.canvas >= 1 && logits.canvas <= kMaxCanvas && logits.vocab >= 1 &&
           logits.vocab <= kMaxChunks * kChunk && shape.hidden >= 1 && shape.max_tokens <= kMaxTokens;
}

void check_fits(const StepShape& shape) {
    if (fits(shape)) return;
    throw RequestError("CUDA: the kernels take a canvas of 1 to " + std::to_string(kMaxCanvas) +
                       " positions, a vocabulary of 1 to " + std::to_string(kMaxChunks * kChunk) +
                       " tokens and passes of at most " + std::to_string(kMaxTokens));
}

uint64_t card_step_bytes(const StepShape& shape, int max_kept) {
    const size_t canvas = size(shape.logits.canvas), padded = round_up(shape.logits.canvas, kTileRows);
    const size_t by_chunk = canvas * n_chunks(shape.logits) * (sizeof(ChunkStats) + sizeof(int32_t));
    const size_t by_position = canvas * (sizeof(RowState) + sizeof(PositionResult) + 4 * sizeof(int32_t));
    const size_t tokens = size(shape.max_tokens) * sizeof(int32_t);
    const size_t buffer = shape.is_buffered ? size(shape.max_tokens) * size(shape.hidden) * sizeof(float) : 0;
    const size_t lists = canvas * size(max_kept) * sizeof(KeptToken);
    const size_t flat =
        padded * (size(kSlab) * sizeof(uint16_t) + round_up(shape.hidden, kTileColumns) * sizeof(float));
    return by_chunk + by_position + tokens + lists + flat + buffer;
}

CardStep::CardStep(const StepShape& shape, const Embedding& embedding, float dropped_mass, int max_kept)
    : shape_(shape),
      embedding_(embedding),
      cut_(dropped_mass / static_cast<float>(shape.logits.vocab)),
      max_kept_(max_kept),
      stats_(size(shape.logits.canvas) * n_chunks(shape.logits)),
      states_(size(shape.logits.canvas)),
      argmax_(size(shape.logits.canvas)),
      next_canvas_(size(shape.logits.canvas)),
      tokens_(size(shape.max_tokens)),
      report_(sizeof(Report) + size(shape.logits.canvas) * sizeof(PositionResult)),
      offsets_(stats_.size()),
      n_kept_(size(shape.logits.canvas)),
      flat_rows_(size(shape.logits.canvas)),
      list_(size(shape.logits.canvas) * size(max_kept)),
      flat_probabilities_(round_up(shape.logits.canvas, kTileRows) * size(kSlab)),
      flat_sums_(round_up(shape.logits.canvas, kTileRows) * round_up(shape.hidden, kTileColumns)) {
    if (shape.is_buffered) buffer_.emplace(size(shape.max_tokens) * size(shape.hidden));
    stream_.fill(argmax_.data(), 0xff, argmax_.n_bytes());  // -1: no step before
}

KeptTokens CardStep::kept() const {
    return {cut_, max_kept_, offsets_.data(), n_kept_.data(), list_.data(), flat_rows_.data(), &report()->n_flat};
}

void CardStep::summarise(const LogitRows& rows, const StepSite& site) {
    rows_ = rows;
    summarise_rows(rows, site, stats_.data(), states_.data(), stream_);
    count_kept(rows, stats_.data(), states_.data(), kept(), stream_);
}

SamplerStep CardStep::sample(const float* logits, const StepRequest& request) {
    use_card_of(logits);
    sampled_.clear();
    const LogitShape& shape = shape_.logits;
    summarise({logits, shape.canvas, shape.vocab, shape.soft_cap, static_cast<float>(1 / request.temperature)},
              request.site);
    accept_and_renoise(rows_, request.site, request.entropy_bound, states_.data(), argmax_.data(), next_canvas_.data(),
                       results(), &report()->summary, stream_);
    std::vector<char> host(report_.size());
    stream_.copy(host.data(), report_.data(), host.size());
    stream_.wait();
    Report found;
    std::vector<PositionResult> results(size(shape.canvas));
    std::memcpy(&found, host.data(), sizeof found);
    std::memcpy(results.data(), host.data() + sizeof found, host.size() - sizeof found);
    summary_ = found.summary;
    n_flat_ = found.n_flat;
    if (summary_.first_nan < shape.canvas) throw_not_a_number(summary_.first_nan);
    SamplerStep step = to_step(results.data(), shape.canvas);
    sampled_ = step.next_canvas;
    return step;
}

void CardStep::condition_on(const float* z) {
    use_card_of(z);
    summarise({z, shape_.logits.canvas, shape_.logits.vocab, /*soft_cap=*/0, /*inverse_temperature=*/1}, {});
    stream_.copy(&n_flat_, &report()->n_flat, sizeof n_flat_);
    stream_.wait();
}

void CardStep::embed(const std::vector<int32_t>& tokens, float* rows) {
    use_card_of(embedding_.rows);
    const int n = static_cast<int>(tokens.size());
    const bool is_sampled = tokens == sampled_;
    if (!is_sampled) stream_.copy(tokens_.data(), tokens.data(), tokens.size() * sizeof(int32_t));
    embed_tokens(is_sampled ? next_canvas_.data() : tokens_.data(), n, embedding_, place_for(rows), stream_);
    send(rows, n);
}

void CardStep::self_conditioning(float* soft) {
    use_card_of(embedding_.rows);
    float* place = place_for(soft);
    sum_sparse_rows(rows_, stats_.data(), states_.data(), kept(), embedding_, place, stream_);
    if (n_flat_ > 0) {
        sum_flat_rows(rows_, states_.data(), kept(), embedding_, {flat_probabilities_.data(), flat_sums_.data()}, place,
                      stream_);
    }
    send(soft, shape_.logits.canvas);
}

void CardStep::no_conditioning(float* soft) {
    use_card_of(embedding_.rows);
    const size_t n_bytes = size(shape_.logits.canvas) * size(shape_.hidden) * sizeof(float);
    stream_.fill(place_for(soft), 0, n_bytes);
    send(soft, shape_.logits.canvas);
}

/// n rows from the buffer to where they are wanted.
void CardStep::send(float* rows, int n) {
    if (buffer_) stream_.copy(rows, buffer_->data(), size(n) * size(shape_.hidden) * sizeof(float));
}

}  // namespace dgemma::cuda
