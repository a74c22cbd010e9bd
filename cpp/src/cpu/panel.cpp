#include "cpu/panel.h"

namespace dgemma {

const std::vector<const PanelKernel*>& panel_kernels() {
    static const auto supported = [] {
        std::vector<const PanelKernel*> kernels;
        for (const PanelKernel* kernel : {&kAvx512Panels, &kAvx2Panels}) {
            if (kernel->supported()) kernels.push_back(kernel);
        }
        return kernels;
    }();
    return supported;
}

bool can_multiply_panels(ggml_type type) {
    return !panel_kernels().empty() && panel_kernels().front()->can_multiply(type);
}

void multiply_panel(const PanelRows& rows, const PanelRows& next, const Int8Row* columns, int64_t n,
                    float (*out)[kPanelRows]) {
    panel_kernels().front()->multiply(rows, next, columns, n, out);
}

}  // namespace dgemma
