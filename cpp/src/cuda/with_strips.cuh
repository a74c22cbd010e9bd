// Which struct takes dense weights of a type apart.
#pragma once

#include "cuda/dense_weights.cuh"
#include "cuda/with_groups.cuh"

namespace dgemma::cuda {

/// launch(groups) for weights of this type; false where there is none.
template <typename Launch>
bool with_strips(ggml_type type, Launch launch) {
    if (type == GGML_TYPE_Q6_K) return launch(Q6_KGroups()), true;
    return with_groups(type, launch);
}

}  // namespace dgemma::cuda
