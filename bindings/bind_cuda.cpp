#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "bindings.h"
#include "dgemma/dgemma.h"

using namespace nb::literals;

namespace {

using Logits = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

dgemma::CardJobResult run(const dgemma::CardJob& job) {
    const nb::gil_scoped_release release;
    return dgemma::run_on_card(job);
}

std::pair<float*, nb::capsule> new_values(size_t n) {
    auto* values = new float[n];
    return {values, nb::capsule(values, [](void* p) noexcept { delete[] static_cast<float*>(p); })};
}

nb::dict run_on_card(const Logits& logits, const std::optional<Logits>& before, float soft_cap, double temperature,
                     double entropy_bound, uint64_t seed, uint32_t step, uint32_t block, const Rows& embedding,
                     const std::string& type, int64_t n_cols, float dropped_mass, int max_kept,
                     const std::vector<int32_t>& tokens, bool is_buffered) {
    const size_t canvas = logits.shape(0), n_vocab = logits.shape(1), columns = static_cast<size_t>(n_cols);
    if (embedding.shape(0) != n_vocab || embedding.shape(1) != dgemma::row_bytes(type, n_cols)) {
        throw nb::value_error("the embedding is not [columns of the logits, n_cols]");
    }
    if (before && (before->shape(0) != canvas || before->shape(1) != n_vocab)) {
        throw nb::value_error("the logits before have another shape");
    }
    const size_t n_tokens = tokens.empty() ? canvas : tokens.size();
    const auto [soft, soft_owner] = new_values(canvas * columns);
    const auto [rows, rows_owner] = new_values(n_tokens * columns);
    const dgemma::CardJobResult result =
        run({logits.data(), before ? before->data() : nullptr, static_cast<int>(canvas), static_cast<int>(n_vocab),
             soft_cap, temperature, entropy_bound, seed, step, block, type, n_cols, embedding.data(), dropped_mass,
             max_kept, soft, tokens, rows, is_buffered});
    nb::dict found;
    found["argmax"] = to_numpy<int32_t>(result.step.argmax);
    found["sampled"] = to_numpy<int32_t>(result.step.sampled);
    found["entropy"] = to_numpy<float>(result.step.entropy);
    found["accepted"] = to_numpy<bool>(result.step.accepted);
    found["next_canvas"] = to_numpy<int32_t>(result.step.next_canvas);
    found["canvas_on_card"] = to_numpy<int32_t>(result.canvas_on_card);
    found["mean_entropy"] = result.mean_entropy;
    found["unchanged"] = result.unchanged;
    found["n_flat"] = result.n_flat;
    found["soft"] = Array2<float>(soft, {canvas, columns}, soft_owner);
    found["rows"] = Array2<float>(rows, {n_tokens, columns}, rows_owner);
    return found;
}

}  // namespace

void init_cuda(nb::module_& m) {
    m.def("cuda_unavailable", &dgemma::cuda_unavailable,
          "Empty where dgemma's CUDA kernels can run; otherwise the sentence that says why not.");
    m.def("run_on_card", &run_on_card, "logits"_a, "before"_a.none(), "soft_cap"_a, "temperature"_a, "entropy_bound"_a,
          "seed"_a, "step"_a, "block"_a, "embedding"_a, "type"_a, "n_cols"_a, "dropped_mass"_a, "max_kept"_a,
          "tokens"_a, "is_buffered"_a,
          nb::sig("def run_on_card(logits: NDArray[numpy.float32], before: NDArray[numpy.float32] | None, soft_cap: "
                  "float, temperature: float, entropy_bound: float, seed: int, step: int, block: int, embedding: "
                  "NDArray[numpy.uint8], type: str, n_cols: int, dropped_mass: float, max_kept: int, tokens: "
                  "collections.abc.Sequence[int], is_buffered: bool) -> dict[str, typing.Any]"),
          "The sampler's step and the next self-conditioning [C, n_cols] of raw logits [C, V] as the CUDA kernels "
          "compute them, and the embedding's rows of `tokens`, or of the step's next canvas without any. Raises "
          "BackendError where they cannot run.");
}
