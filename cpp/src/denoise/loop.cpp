#include "denoise/loop.h"

#include <algorithm>

namespace dgemma {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void check(const GenerationRequest& request) {
    const SamplerConfig& s = request.sampler;
    if (request.max_new_tokens < 1) throw RequestError("max_new_tokens must be at least 1");
    if (s.max_denoising_steps < 1) throw RequestError("max_denoising_steps must be at least 1");
    if (!(s.t_min >= 0 && s.t_max > 0 && s.t_max >= s.t_min)) {
        throw RequestError("the temperatures must satisfy 0 <= t_min <= t_max and t_max > 0");
    }
    if (!(s.entropy_bound >= 0)) throw RequestError("entropy_bound must be at least 0");
    if (s.stability_threshold < 0) throw RequestError("stability_threshold must be at least 0");
    if (!(s.confidence_threshold >= 0)) throw RequestError("confidence_threshold must be at least 0");
}

}  // namespace

DenoiseLoop::DenoiseLoop(Denoiser& model, const GenerationRequest& request)
    : model_(model),
      request_(request),
      stop_(request.sampler.stability_threshold, request.sampler.confidence_threshold) {
    check(request);
}

std::optional<Event> DenoiseLoop::next() {
    while (events_.empty()) {
        if (done_) return std::nullopt;
        if (!begun_) {
            begin();
        } else if (!in_block_) {
            begin_block();
        } else {
            step();
        }
    }
    std::optional<Event> event(std::move(events_.front()));
    events_.pop_front();
    return event;
}

void DenoiseLoop::begin() {
    start_ = Clock::now();
    encode(request_.prompt);
    stats_.prompt_tokens = static_cast<int>(request_.prompt.size());
    begun_ = true;
}

void DenoiseLoop::encode(const std::vector<int32_t>& tokens) {
    if (tokens.empty()) return;
    const Clock::time_point start = Clock::now();
    model_.encode(tokens);
    stats_.encode_seconds += seconds_since(start);
}

void DenoiseLoop::begin_block() {
    // The finished canvas becomes context only now, when another one follows it.
    const int pending = static_cast<int>(argmax_.size());
    if (model_.room() < pending + model_.canvas_length()) return finish(DoneReason::kContext, std::nullopt);
    encode(argmax_);
    argmax_.clear();
    ++block_;
    step_ = 0;
    stop_.reset();
    canvas_.resize(static_cast<size_t>(model_.canvas_length()));
    for (int i = 0; i < model_.canvas_length(); ++i) {
        const RandomSite site{static_cast<uint32_t>(i), 0, static_cast<uint32_t>(block_), Stream::kCanvas};
        canvas_[static_cast<size_t>(i)] = random_token(request_.seed, site, model_.n_vocab());
    }
    in_block_ = true;
}

void DenoiseLoop::step() {
    const Clock::time_point start = Clock::now();
    const SamplerConfig& s = request_.sampler;
    const bool conditioned = step_ > 0;
    // The reference counts steps down from N to 1; N is part of the schedule, so fewer steps are another schedule.
    const double remaining = s.max_denoising_steps - step_;
    const double temperature = s.t_min + (s.t_max - s.t_min) * (remaining / s.max_denoising_steps);
    ++step_;
    const StepSite site{request_.seed, static_cast<uint32_t>(step_), static_cast<uint32_t>(block_)};
    SamplerStep sampled = model_.denoise(canvas_, conditioned, {temperature, s.entropy_bound, site});
    const bool stop = stop_(sampled.argmax, sampled.entropy);
    canvas_ = std::move(sampled.next_canvas);
    argmax_ = std::move(sampled.argmax);
    stats_.denoise_seconds += seconds_since(start);
    ++stats_.steps;
    events_.push_back(StepEvent{block_, step_, temperature, canvas_, argmax_, std::move(sampled.accepted),
                                std::move(sampled.entropy)});
    if (stop || step_ == s.max_denoising_steps) end_block();
}

void DenoiseLoop::end_block() {
    in_block_ = false;
    ++stats_.blocks;
    const std::vector<int32_t>& eos = model_.eos_ids();
    const auto end = std::find_first_of(argmax_.begin(), argmax_.end(), eos.begin(), eos.end());
    const auto before_end = static_cast<size_t>(end - argmax_.begin());
    const auto wanted = static_cast<size_t>(request_.max_new_tokens - stats_.new_tokens);
    const size_t kept = std::min(before_end, wanted);
    stats_.new_tokens += static_cast<int>(kept);
    events_.push_back(BlockEvent{block_, {argmax_.begin(), argmax_.begin() + static_cast<std::ptrdiff_t>(kept)}});
    if (end != argmax_.end() && before_end <= wanted) return finish(DoneReason::kStop, *end);
    if (kept == wanted) finish(DoneReason::kLength, std::nullopt);
}

void DenoiseLoop::finish(DoneReason reason, std::optional<int32_t> end_token) {
    done_ = true;
    stats_.wall_seconds = seconds_since(start_);
    events_.push_back(DoneEvent{reason, end_token, stats_});
}

}  // namespace dgemma
