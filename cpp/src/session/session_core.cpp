#include "session/session_core.h"

#include <algorithm>

#include "cuda/card_layers.h"
#include "cuda/card_logits.h"
#include "session/plan.h"

namespace dgemma {
namespace {

std::unique_ptr<StepLogits> logits_for(EngineCore& engine) {
    const Model& model = engine.model();
    const Devices& devices = engine.devices();
    const float dropped = dropped_mass(engine.options());
    const int64_t n = max_tokens(engine.options(), model.hparams());
    // The card's kernels leave small probabilities out and round flat rows.
    if (dropped > 0) {
        if (auto on_card = cuda::make_card_logits(model, devices, dropped, n, engine.pool())) return on_card;
    }
    return std::make_unique<HostLogits>(model, devices, dropped, n, engine.pool());
}

std::unique_ptr<OwnLayers> layers_for(EngineCore& engine, const KvCache& cache) {
    if (!engine.plan().own_card_layers) return nullptr;
    return cuda::make_card_layers(engine.model(), engine.devices(), cache,
                                  max_tokens(engine.options(), engine.model().hparams()));
}

}  // namespace

SessionCore::SessionCore(EngineCore& engine)
    : engine_(engine),
      cache_(engine.model(), engine.devices(), cache_shape(engine.model(), engine.options()), /*plan_only=*/false),
      logits_(logits_for(engine)),
      layers_(layers_for(engine, cache_)),
      encoder_(Pass::kEncoder, engine.model(), engine.devices(), cache_, nullptr, layers_.get(),
               engine.options().exact),
      decoder_(Pass::kDecoder, engine.model(), engine.devices(), cache_, logits_->product(), layers_.get(),
               engine.options().exact) {
    encoder_.reserve(chunk_of(engine.options()));
    decoder_.reserve(canvas_length());
}

void SessionCore::check_tokens(const std::vector<int32_t>& tokens, const char* what) const {
    const auto bad = std::find_if(tokens.begin(), tokens.end(), [&](int32_t t) { return t < 0 || t >= n_vocab(); });
    if (bad == tokens.end()) return;
    throw RequestError(std::string(what) + ": token " + std::to_string(*bad) + " at index " +
                       std::to_string(bad - tokens.begin()) + " is not in the vocabulary (0 to " +
                       std::to_string(n_vocab() - 1) + ")");
}

void SessionCore::encode(const std::vector<int32_t>& tokens) {
    check_tokens(tokens, "prefill");
    if (static_cast<int64_t>(tokens.size()) > room()) {
        throw ContextError("prefill: " + std::to_string(tokens.size()) + " tokens do not fit: the context holds " +
                           std::to_string(cache_.shape().n_ctx) + " and " + std::to_string(cache_.n_past()) +
                           " are taken; a larger n_ctx holds more");
    }
    if (timer_) timer_->begin();
    const int before = cache_.n_past();
    const auto chunk = static_cast<size_t>(engine_.options().n_batch);
    try {
        for (size_t first = 0; first < tokens.size(); first += chunk) {
            const size_t last = std::min(tokens.size(), first + chunk);
            const std::vector<int32_t> part(tokens.begin() + static_cast<std::ptrdiff_t>(first),
                                            tokens.begin() + static_cast<std::ptrdiff_t>(last));
            cache_.begin_write(static_cast<int>(part.size()));
            logits_->embed(part, encoder_.prepare(static_cast<int64_t>(part.size())).rows);
            if (timer_) timer_->end("embedding");
            encoder_.run();
            cache_.commit(static_cast<int>(part.size()));
        }
    } catch (...) {  // stopped, or a device failed
        cache_.abandon(before);
        throw;
    }
}

SamplerStep SessionCore::denoise(const std::vector<int32_t>& canvas, bool conditioned, const StepRequest& request) {
    compute_logits(canvas, conditioned);
    SamplerStep step = logits_->sample(request);
    if (timer_) timer_->end("sampler");
    return step;
}

void SessionCore::compute_logits(const std::vector<int32_t>& canvas, bool conditioned) {
    check_tokens(canvas, "denoise");
    if (static_cast<int>(canvas.size()) != canvas_length()) {
        throw RequestError("denoise: the canvas has " + std::to_string(canvas.size()) + " tokens, the model's has " +
                           std::to_string(canvas_length()));
    }
    if (cache_.n_past() == 0) throw ContextError("denoise: the cache is empty; prefill a prompt first");
    if (room() < canvas_length()) {
        throw ContextError("denoise: a canvas of " + std::to_string(canvas_length()) +
                           " does not fit: the context holds " + std::to_string(cache_.shape().n_ctx) + " and " +
                           std::to_string(cache_.n_past()) + " are taken; a larger n_ctx holds more");
    }
    if (timer_) timer_->begin();
    logits_->embed_canvas(canvas, conditioned, decoder_.prepare(canvas_length()),
                          [&] { return engine_.worker().stopping(); });
    if (timer_) timer_->end("self_conditioning");
    cache_.begin_write(canvas_length());
    decoder_.start();
}

void SessionCore::collect_inputs() {
    if (!engine_.options().exact)
        throw RequestError("collect_inputs: only an engine made with exact can be looked into");
    timer_.reset();
    collector_ = std::make_unique<InputCollector>();
    encoder_.observe(collector_.get());
    decoder_.observe(collector_.get());
}

std::vector<InputSums> SessionCore::take_inputs() {
    if (!collector_) throw RequestError("take_inputs: nothing is collected; call collect_inputs first");
    return collector_->take();
}

void SessionCore::time_parts() {
    collector_.reset();
    timer_ = std::make_unique<PartTimer>();
    encoder_.observe(timer_.get());
    decoder_.observe(timer_.get());
}

std::map<std::string, double> SessionCore::take_parts() {
    if (!timer_) throw RequestError("take_parts: nothing is timed; call time_parts first");
    return timer_->take();
}

void SessionCore::add_memory(MemoryUse& use) const {
    cache_.add_memory(use);
    logits_->add_memory(use);
    const std::string host = device_name(engine_.devices().cpu());
    use[host]["compute"] +=
        attention_scratch(engine_.model(), engine_.options(), engine_.model().units(), engine_.devices().cpu_index());
    if (layers_) layers_->add_memory(use);
    encoder_.add_memory(use);
    decoder_.add_memory(use);
}

}  // namespace dgemma
