// For compilers without the vector extensions that k_quants.cpp is written in (MSVC): ggml's own quantisers do it all.
#include "quantize/k_quants.h"

namespace dgemma {

BlockQuantizer fast_quantizer(ggml_type /*type*/) { return nullptr; }

}  // namespace dgemma
