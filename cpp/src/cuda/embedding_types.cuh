// Chooses a kernel by the embedding's type.
#pragma once

#include "cuda/conditioning.h"
#include "cuda/dequantise.cuh"

namespace dgemma::cuda {

/// launch(reader) with the struct of dequantise.cuh that reads rows of this type; false where there is none.
template <typename Launch>
bool with_reader(ggml_type type, Launch launch) {
    switch (type) {
        case GGML_TYPE_F32:
            return launch(F32Rows()), true;
        case GGML_TYPE_F16:
            return launch(F16Rows()), true;
        case GGML_TYPE_BF16:
            return launch(Bf16Rows()), true;
        case GGML_TYPE_Q8_0:
            return launch(Q8_0Rows()), true;
        case GGML_TYPE_Q4_K:
            return launch(Q4_KRows()), true;
        case GGML_TYPE_Q5_K:
            return launch(Q5_KRows()), true;
        case GGML_TYPE_Q6_K:
            return launch(Q6_KRows()), true;
        case GGML_TYPE_Q3_K:
            return launch(Q3_KRows()), true;
        case GGML_TYPE_IQ4_NL:
            return launch(IQ4_NLRows()), true;
        case GGML_TYPE_IQ4_XS:
            return launch(IQ4_XSRows()), true;
        default:
            return false;
    }
}

}  // namespace dgemma::cuda
