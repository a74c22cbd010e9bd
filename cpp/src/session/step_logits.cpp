#include "session/step_logits.h"

#include <ggml-backend.h>

#include <algorithm>
#include <string>

#include "denoise/rows.h"
#include "session/soft_embedding.h"

namespace dgemma {

ggml_tensor* new_product(ggml_context* context, const Hparams& h) {
    return ggml_new_tensor_2d(context, GGML_TYPE_F32, h.vocab, h.canvas);
}

HostLogits::HostLogits(const Model& model, ggml_backend_t head, ggml_backend_t cpu, float dropped_mass,
                       ThreadPool& pool)
    : model_(model),
      head_(head),
      cpu_(cpu),
      dropped_mass_(dropped_mass),
      pool_(pool),
      context_(make_tensor_context(1)),
      product_(new_product(context_.get(), model.hparams())) {
    allocate();
}

void HostLogits::allocate() {
    buffer_.reset(ggml_backend_alloc_ctx_tensors(context_.get(), head_));
    if (!buffer_) {
        throw BackendError(device_name(head_) + ": not enough memory for the logits (" +
                           std::to_string(ggml_nbytes(product_) >> 20) + " MiB)");
    }
    if (ggml_backend_buffer_is_host(buffer_.get())) {
        logits_ = static_cast<float*>(product_->data);
    } else {
        copy_.resize(static_cast<size_t>(ggml_nelements(product_)));
        logits_ = copy_.data();
    }
}

void HostLogits::fetch() {
    if (!copy_.empty()) ggml_backend_tensor_get(product_, logits_, 0, ggml_nbytes(product_));
}

SamplerStep HostLogits::sample(const SamplerInputs& inputs) {
    fetch();
    const Hparams& h = model_.hparams();
    return sample_canvas(logits_, {static_cast<int>(h.canvas), static_cast<int>(h.vocab), h.logit_softcap}, inputs,
                         pool_);
}

void HostLogits::self_conditioning(float* soft, const std::function<bool()>& stopping) {
    soft_embedding(logits_, static_cast<int>(model_.hparams().canvas), model_.weights().token_embd, dropped_mass_, soft,
                   pool_, stopping);
}

void HostLogits::condition_on(const float* z) { std::copy_n(z, ggml_nelements(product_), logits_); }

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
    use[device_name(head_)]["sampler"] += ggml_nbytes(product_);
    use[device_name(cpu_)]["sampler"] += copy_.size() * sizeof(float);
}

}  // namespace dgemma
