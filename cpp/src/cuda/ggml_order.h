// Orders our queue with ggml's on the same card. ggml's public API lets only the host wait, which leaves the card idle
// meanwhile.
#pragma once

#include <ggml-backend.h>

#include "cuda/card.h"

namespace dgemma::cuda {

class GgmlOrder {
  public:
    /// With a ggml backend of the current card.
    explicit GgmlOrder(ggml_backend_t backend);
    ~GgmlOrder();
    GgmlOrder(const GgmlOrder&) = delete;
    GgmlOrder& operator=(const GgmlOrder&) = delete;

    /// What the stream is given from now on begins once all that ggml was given is done.
    void after_ggml(const Stream& stream) const;
    /// What ggml is given from now on begins once all that the stream was given is done.
    void before_ggml(const Stream& stream) const;

  private:
    ggml_backend_t backend_;
    ggml_backend_event_t event_;  // null: the host has to wait
};

}  // namespace dgemma::cuda
