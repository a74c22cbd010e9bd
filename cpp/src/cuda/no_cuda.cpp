// In place of all of cuda/ where the kernels are not built.
#include "cuda/card_layers.h"
#include "cuda/card_logits.h"
#include "dgemma/card_jobs.h"

namespace dgemma {

std::string cuda_unavailable() {
    return "dgemma was built without its CUDA kernels; build it where nvcc and a ggml with CUDA are found "
           "(docs/cuda.md)";
}

CardJobResult run_on_card(const CardJob& /*job*/) { throw BackendError(cuda_unavailable()); }

ExpertJobResult run_experts_on_card(const ExpertJob& /*job*/) { throw BackendError(cuda_unavailable()); }

std::vector<std::vector<float>> run_dense_on_card(const DenseJob& /*job*/) { throw BackendError(cuda_unavailable()); }

std::vector<uint16_t> run_mask_on_card(const MaskJob& /*job*/) { throw BackendError(cuda_unavailable()); }

void run_heads_on_card(const HeadJob& /*job*/) { throw BackendError(cuda_unavailable()); }

DenseTimes time_dense(const DenseJob& /*job*/, int /*n_runs*/) { throw BackendError(cuda_unavailable()); }

ExpertTimes time_experts(const ExpertJob& /*job*/, int /*n_runs*/) { throw BackendError(cuda_unavailable()); }

LayerRowsResult run_layer_rows_on_card(const LayerRowsJob& /*job*/) { throw BackendError(cuda_unavailable()); }

namespace cuda {

std::unique_ptr<StepLogits> make_card_logits(const Model& /*model*/, const Devices& /*devices*/, float /*dropped_mass*/,
                                             int64_t /*max_tokens*/, ThreadPool& /*pool*/) {
    return nullptr;
}

uint64_t card_logits_bytes(const Model& /*model*/, const std::string& /*head*/, int64_t /*max_tokens*/,
                           bool /*is_buffered*/) {
    return 0;
}

std::string why_not_on_card(const Model& /*model*/, const std::string& head, int64_t /*max_tokens*/) {
    return head.rfind("CUDA", 0) == 0 ? cuda_unavailable() : "";
}

std::string why_no_card_layers(const Model& /*model*/, const std::string& /*device*/, int64_t /*max_tokens*/) {
    return cuda_unavailable();
}

uint64_t card_layers_bytes(const Model& /*model*/, int64_t /*max_tokens*/) { return 0; }

std::unique_ptr<OwnLayers> make_card_layers(const Model& /*model*/, const Devices& /*devices*/,
                                            const KvCache& /*cache*/, int64_t /*max_tokens*/) {
    return nullptr;
}

}  // namespace cuda
}  // namespace dgemma
