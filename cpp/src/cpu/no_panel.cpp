// For processors without a kernel of ours: ggml's products do it all.
#include "cpu/panel.h"
#include "cpu/unpack.h"

namespace dgemma {

bool has_int8_products() { return false; }

bool can_multiply_panels(ggml_type /*type*/) { return false; }

void multiply_panel(const PanelRows& /*rows*/, const PanelRows& /*next*/, const Int8Row* /*columns*/, int64_t /*n*/,
                    float (* /*out*/)[kPanelRows]) {}

const Unpacker* find_unpacker(ggml_type /*type*/) { return nullptr; }

void unpack_floats(const Unpacker& /*unpacker*/, const uint8_t* /*blocks*/, int64_t /*n*/, float* /*to*/) {}

}  // namespace dgemma
