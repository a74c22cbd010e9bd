// Chooses a kernel by the embedding's type.
#pragma once

#include "cuda/conditioning.h"
#include "cuda/dequantise.cuh"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {

/// launch(reader) with the struct of dequantise.cuh that reads rows of this type.
template <typename Launch>
void with_reader(ggml_type type, Launch launch) {
    switch (type) {
        case GGML_TYPE_F32:
            return launch(F32Rows());
        case GGML_TYPE_F16:
            return launch(F16Rows());
        case GGML_TYPE_BF16:
            return launch(Bf16Rows());
        case GGML_TYPE_Q8_0:
            return launch(Q8_0Rows());
        case GGML_TYPE_Q4_K:
            return launch(Q4_KRows());
        case GGML_TYPE_Q6_K:
            return launch(Q6_KRows());
        default:
            throw RequestError(std::string("CUDA: no kernel reads an embedding of type ") + ggml_type_name(type));
    }
}

}  // namespace dgemma::cuda
