// For compilers without AVX2.
#include "cpu/panel.h"

namespace dgemma {

const PanelKernel kAvx2Panels{"AVX2", [] { return false; }, nullptr, nullptr};

}  // namespace dgemma
