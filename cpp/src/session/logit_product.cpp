#include "session/logit_product.h"

#include <string>

#include "dgemma/dgemma.h"

namespace dgemma {
namespace {

BufferPtr pretend(ggml_tensor* tensor) {
    void* nowhere = reinterpret_cast<void*>(uintptr_t{1} << 20);
    BufferPtr buffer(ggml_backend_cpu_buffer_from_ptr(nowhere, ggml_nbytes(tensor)));
    ggml_backend_tensor_alloc(buffer.get(), tensor, nowhere);
    return buffer;
}

}  // namespace

LogitProduct::LogitProduct(const Hparams& hparams, ggml_backend_t head, bool plan_only)
    : head_(head),
      context_(make_tensor_context(1)),
      tensor_(ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, hparams.vocab, hparams.canvas)) {
    if (plan_only) {
        buffer_ = pretend(tensor_);
        return;
    }
    buffer_.reset(ggml_backend_alloc_ctx_tensors(context_.get(), head));
    if (!buffer_) {
        throw BackendError(std::string(ggml_backend_name(head)) + ": not enough memory for the logits (" +
                           std::to_string(ggml_nbytes(tensor_) >> 20) +
                           " MiB); a larger n_cpu_moe leaves more on the CPU");
    }
}

}  // namespace dgemma
