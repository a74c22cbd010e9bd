// The masks' kernel to the host's memory, for comparing it with plain arithmetic.
#include "cuda/host_copies.h"
#include "cuda/masks.h"
#include "dgemma/card_jobs.h"

namespace dgemma {

std::vector<uint16_t> run_mask_on_card(const MaskJob& job) {
    if (const std::string why = cuda_unavailable(); !why.empty()) throw BackendError(why);
    const cuda::DeviceArray<uint16_t> mask(static_cast<size_t>(job.keys) * static_cast<size_t>(job.padded));
    const cuda::Stream stream;
    cuda::write_mask({job.n_past, job.n, job.padded, job.keys, job.cells, job.window, job.is_causal}, mask.data(),
                     stream);
    stream.wait();
    return cuda::downloaded(mask.data(), mask.size());
}

}  // namespace dgemma
