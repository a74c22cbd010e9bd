#include "session/step_logits.h"

#include <ggml-backend.h>

#include <algorithm>
#include <string>

#include "denoise/rows.h"
#include "session/soft_embedding.h"

namespace dgemma {

HostLogits::HostLogits(const Model& model, ggml_backend_t head, ggml_backend_t cpu, float dropped_mass,
                       ThreadPool& pool)
    : model_(model),
      cpu_(cpu),
      dropped_mass_(dropped_mass),
      pool_(pool),
      place_(model.hparams(), head, /*plan_only=*/false) {
    if (ggml_backend_buffer_is_host(product()->buffer)) {
        logits_ = static_cast<float*>(product()->data);
    } else {
        copy_.resize(static_cast<size_t>(ggml_nelements(product())));
        logits_ = copy_.data();
    }
}

void HostLogits::fetch() {
    if (!copy_.empty()) ggml_backend_tensor_get(product(), logits_, 0, ggml_nbytes(product()));
}

SamplerStep HostLogits::sample(const StepRequest& request) {
    fetch();
    const Hparams& h = model_.hparams();
    const int canvas = static_cast<int>(h.canvas), vocab = static_cast<int>(h.vocab);
    std::vector<double> u(static_cast<size_t>(canvas));
    std::vector<int32_t> noise(static_cast<size_t>(canvas));
    for (int i = 0; i < canvas; ++i) {
        u[static_cast<size_t>(i)] = draw_at(request.site, i);
        noise[static_cast<size_t>(i)] = noise_at(request.site, i, vocab);
    }
    return sample_canvas(logits_, {canvas, vocab, h.logit_softcap},
                         {request.temperature, request.entropy_bound, u.data(), noise.data()}, pool_);
}

void HostLogits::self_conditioning(float* soft, const std::function<bool()>& stopping) {
    soft_embedding(logits_, static_cast<int>(model_.hparams().canvas), model_.weights().token_embd, dropped_mass_, soft,
                   pool_, stopping);
}

void HostLogits::condition_on(const float* z) { std::copy_n(z, ggml_nelements(product()), logits_); }

void HostLogits::read(float* logits) {
    fetch();
    const Hparams& h = model_.hparams();
    pool_.run(static_cast<int>(h.canvas), [&](int row) {
        float* to = logits + row * h.vocab;
        std::copy_n(logits_ + row * h.vocab, h.vocab, to);
        soft_cap_row(to, h.vocab, h.logit_softcap);
    });
}

void HostLogits::add_memory(MemoryUse& use) const {
    use[device_name(place_.head())]["sampler"] += ggml_nbytes(product());
    use[device_name(cpu_)]["sampler"] +=
        copy_.size() * sizeof(float) + soft_embedding_bytes(static_cast<int>(model_.hparams().canvas),
                                                            model_.weights().token_embd, dropped_mass_, pool_.size());
}

}  // namespace dgemma
