// For processors without a kernel of ours: ggml's attention does it all.
#include "cpu/attention_tile.h"

namespace dgemma {

bool has_attention_tile() { return false; }

void pack_keys(const KeyRows& /*keys*/, uint32_t* /*words*/) {}

void pack_values(const KeyRows& /*values*/, uint32_t* /*words*/) {}

void pack_queries(const float* const* /*rows*/, int64_t /*n*/, int64_t /*width*/, uint32_t* /*words*/) {}

void score_tile(const uint32_t* /*keys*/, int64_t /*n*/, const uint32_t* /*queries*/, int64_t /*width*/,
                float* /*scores*/) {}

void start_softmax(RunningSoftmax& /*softmax*/) {}

void weigh_tile(float* /*scores*/, int64_t /*n*/, const ggml_fp16_t* /*mask*/, RunningSoftmax& /*softmax*/,
                uint32_t* /*weights*/) {}

void add_values(const uint32_t* /*weights*/, const RunningSoftmax& /*softmax*/, const uint32_t* /*values*/,
                int64_t /*n*/, int64_t /*width*/, float* /*sums*/) {}

}  // namespace dgemma
