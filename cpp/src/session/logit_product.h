// A place for the LM head's product, [vocab, canvas] F32, on the head's device.
#pragma once

#include <ggml.h>

#include "model/devices.h"
#include "model/hparams.h"

namespace dgemma {

class LogitProduct {
  public:
    /// `plan_only`: at no real address, for graphs that are measured and never run. BackendError if there is no room.
    LogitProduct(const Hparams& hparams, ggml_backend_t head, bool plan_only);

    ggml_tensor* tensor() const { return tensor_; }
    ggml_backend_t head() const { return head_; }

  private:
    ggml_backend_t head_;
    ContextPtr context_;
    ggml_tensor* tensor_;
    BufferPtr buffer_;
};

}  // namespace dgemma
