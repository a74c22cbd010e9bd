// What the kernels of a layer leave for each other.
#pragma once

#include "cuda/card_rows.h"
#include "cuda/experts.h"
#include "model/model.h"

namespace dgemma::cuda {

ExpertShape expert_shape(const Hparams& h);

struct LayerMemory {
    /// For passes of up to n tokens, on the current card.
    LayerMemory(const Model& model, Arithmetic arithmetic, int64_t n);
    static uint64_t n_bytes(const Model& model, Arithmetic arithmetic, int64_t n);

    CardRows next, dense, experts;    // [n, hidden]: inputs of the next attention or the head, the FFN, the experts
    CardRows attention;               // [n, hd * heads]
    CardRows gated;                   // [n, ffn]
    DeviceArray<float> residual;      // [n, hidden]
    DeviceArray<float> product;       // [most_shares(), n, hidden]: of attn_output, then of ffn_down
    DeviceArray<float> keys, values;  // [n, hd * kv]
    DeviceArray<float> router_rows, router_logits;  // [n, hidden], [n, experts]
};

}  // namespace dgemma::cuda
