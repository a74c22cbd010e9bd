// For processors without a kernel of ours: ggml's products do it all.
#include "cpu/panel.h"

namespace dgemma {

bool can_multiply_panels(ggml_type /*type*/) { return false; }

void unpack_panel(const uint8_t* /*rows*/, int64_t /*stride*/, int64_t /*k*/, ggml_type /*type*/, Panel& /*panel*/) {}

void multiply_panel(const Panel& /*panel*/, const Int8Row* /*columns*/, int64_t /*n_columns*/, float* /*out*/,
                    int64_t /*out_stride*/) {}

}  // namespace dgemma
