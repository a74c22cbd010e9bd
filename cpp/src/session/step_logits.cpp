#include "session/step_logits.h"

#include <ggml-backend.h>

#include <algorithm>
#include <string>

#include "denoise/rows.h"
#include "session/soft_embedding.h"
#include "session/token_rows.h"

namespace dgemma {

HostLogits::HostLogits(const Model& model, const Devices& devices, float dropped_mass, int64_t max_tokens,
                       ThreadPool& pool)
    : model_(model),
      cpu_(devices.cpu()),
      dropped_mass_(dropped_mass),
      pool_(pool),
      place_(model.hparams(), devices.get(model.head_device()), /*plan_only=*/false) {
    if (model.units().front() != devices.cpu_index()) {
        rows_.resize(static_cast<size_t>(max_tokens * model.hparams().hidden));
    }
    if (ggml_backend_buffer_is_host(product()->buffer)) {
        logits_ = static_cast<float*>(product()->data);
    } else {
        copy_.resize(static_cast<size_t>(ggml_nelements(product())));
        logits_ = copy_.data();
    }
}

void HostLogits::fetch() {
    ggml_backend_synchronize(place_.head());
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

/// Has `write` fill an input of the passes, through a copy where the input is not in the host's memory.
void HostLogits::fill(ggml_tensor* input, const std::function<void(float*)>& write) {
    if (rows_.empty()) return write(static_cast<float*>(input->data));
    write(rows_.data());
    ggml_backend_tensor_set(input, rows_.data(), 0, ggml_nbytes(input));
}

void HostLogits::embed(const std::vector<int32_t>& tokens, ggml_tensor* rows) {
    fill(rows, [&](float* to) { look_up_rows(tokens, model_.weights().token_embd, to, pool_); });
}

void HostLogits::embed_canvas(const std::vector<int32_t>& canvas, bool conditioned, const TokenInputs& inputs,
                              const std::function<bool()>& stopping) {
    embed(canvas, inputs.rows);
    fill(inputs.soft, [&](float* to) {
        if (!conditioned) {
            std::fill_n(to, ggml_nelements(inputs.soft), 0.0f);
            return;
        }
        soft_embedding(logits_, static_cast<int>(canvas.size()), model_.weights().token_embd, dropped_mass_, to, pool_,
                       stopping);
    });
    if (stopping()) throw Cancelled("the computation was stopped");
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
    use[device_name(cpu_)]["sampler"] += (copy_.size() + rows_.size()) * sizeof(float) +
                                         soft_embedding_bytes(static_cast<int>(model_.hparams().canvas),
                                                              model_.weights().token_embd, dropped_mass_, pool_.size());
}

}  // namespace dgemma
