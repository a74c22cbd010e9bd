// For compilers without AVX-512.
#include "cpu/panel.h"
#include "cpu/unpack.h"

namespace dgemma {

const PanelKernel kAvx512Panels{"AVX-512 VNNI", [] { return false; }, nullptr, nullptr};

const Unpacker* find_unpacker(ggml_type /*type*/) { return nullptr; }

void unpack_floats(const Unpacker& /*unpacker*/, const uint8_t* /*blocks*/, int64_t /*n*/, float* /*to*/) {}

}  // namespace dgemma
