// Our products as nodes of a ggml graph, for weights that lie on the CPU.
//
// A node has no barrier inside, so quantising the activations is a node of its own, shared by all products that read
// them. The nodes of a graph run one after another and share their work out through one Pieces, which must live as long
// as the graph. What a piece computes does not depend on who takes it: the result is the same for any number of
// threads.
#pragma once

#include <ggml.h>

#include "cpu/pieces.h"

namespace dgemma {

/// Whether a weight [k, rows, …] can be multiplied by these: on a processor with a kernel, of a type that has an
/// unpacker, in whole panels of 32 rows, in the host's memory.
bool has_cpu_product(const ggml_tensor* weight);

/// x: [k, …] F32 to 8-bit rows [int8_row_bytes(k), …] (cpu/int8_rows.h).
ggml_tensor* build_int8_rows(ggml_context* ctx, ggml_tensor* x, Pieces& pieces);

/// [rows, n] F32 = weight [k, rows] times 8-bit rows [·, n].
ggml_tensor* build_cpu_product(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* rows, Pieces& pieces);

/// The mixture of experts, [hidden, n] F32: for each token and each of its experts down(gelu(gate x) * up x), summed
/// with `weights` in the order of the experts. gate_up: [hidden, 2 ffn, experts], down: [ffn, hidden, experts], rows:
/// 8-bit rows [·, n], experts: [used, n] I32, weights: [1, used, n] F32.
ggml_tensor* build_cpu_experts(ggml_context* ctx, ggml_tensor* gate_up, ggml_tensor* down, ggml_tensor* rows,
                               ggml_tensor* experts, ggml_tensor* weights, Pieces& pieces);

}  // namespace dgemma
