// For processors without a kernel of ours: ggml's products do it all.
#include "cpu/panel.h"

namespace dgemma {

bool can_multiply_panels(ggml_type /*type*/) { return false; }

void multiply_panel(const PanelRows& /*rows*/, const PanelRows& /*next*/, const Int8Row* /*columns*/, int64_t /*n*/,
                    float (* /*out*/)[kPanelRows]) {}

}  // namespace dgemma
