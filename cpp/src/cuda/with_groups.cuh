// Which struct of expert_weights.cuh takes weights of a type apart.
#pragma once

#include "cuda/expert_weights.cuh"

namespace dgemma::cuda {

/// launch(groups) with the struct for weights of this type; false where there is none.
template <typename Launch>
bool with_groups(ggml_type type, Launch launch) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return launch(Q4_0Groups()), true;
        case GGML_TYPE_Q4_1:
            return launch(Q4_1Groups()), true;
        case GGML_TYPE_Q5_0:
            return launch(Q5_0Groups()), true;
        case GGML_TYPE_Q5_1:
            return launch(Q5_1Groups()), true;
        case GGML_TYPE_Q8_0:
            return launch(Q8_0Groups()), true;
        case GGML_TYPE_Q4_K:
            return launch(Q4_KGroups()), true;
        case GGML_TYPE_Q5_K:
            return launch(Q5_KGroups()), true;
        case GGML_TYPE_IQ4_NL:
            return launch(IQ4_NLGroups()), true;
        case GGML_TYPE_IQ4_XS:
            return launch(IQ4_XSGroups()), true;
        default:
            return false;
    }
}

}  // namespace dgemma::cuda
