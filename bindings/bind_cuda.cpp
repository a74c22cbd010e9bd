#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "bindings.h"
#include "dgemma/card_jobs.h"

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

using Matrices = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using RunExperts = dgemma::ExpertJobResult (*)(const dgemma::ExpertJob&);

/// The arguments of the experts' functions, and where their sums go.
struct ExpertArguments {
    const Logits& logits;
    int n_used;
    const Values& expert_scale;
    const Logits& x;
    const Matrices& gate_up;
    const std::string& gate_up_type;
    const Matrices& down;
    const std::string& down_type;
    bool is_bf16;
    std::unique_ptr<float[]> sums{new float[x.shape(0) * x.shape(1)]};

    dgemma::ExpertJob job() const {
        const auto size = [](size_t n) { return static_cast<int>(n); };
        const dgemma::ExpertJob job{
            size(logits.shape(0)), size(logits.shape(1)), n_used,     size(x.shape(1)), size(gate_up.shape(1) / 2),
            logits.data(),         expert_scale.data(),   x.data(),   gate_up_type,     down_type,
            gate_up.data(),        down.data(),           sums.get(), is_bf16};
        const auto is = [&](const Matrices& weights, int rows, const std::string& type, int columns) {
            return weights.shape(0) == logits.shape(1) && size(weights.shape(1)) == rows &&
                   weights.shape(2) == dgemma::row_bytes(type, columns);
        };
        if (expert_scale.shape(0) != logits.shape(1) || x.shape(0) != logits.shape(0)) {
            throw nb::value_error("a scale for each expert and a row of x for each token");
        }
        if (!is(gate_up, 2 * job.ffn, gate_up_type, job.hidden) || !is(down, job.hidden, down_type, job.ffn)) {
            throw nb::value_error("the weights are not [experts, 2 ffn, hidden] and [experts, hidden, ffn]");
        }
        return job;
    }
};

template <RunExperts run_experts>
nb::dict experts(const Logits& logits, int n_used, const Values& expert_scale, const Logits& x, const Matrices& gate_up,
                 const std::string& gate_up_type, const Matrices& down, const std::string& down_type, bool is_bf16) {
    ExpertArguments arguments{logits, n_used, expert_scale, x, gate_up, gate_up_type, down, down_type, is_bf16};
    const dgemma::ExpertJob job = arguments.job();
    dgemma::ExpertJobResult result;
    {
        const nb::gil_scoped_release release;
        result = run_experts(job);
    }
    const size_t used = static_cast<size_t>(n_used);
    float* sums = arguments.sums.release();
    const nb::capsule owner(sums, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    nb::dict found;
    found["experts"] = to_numpy2<int32_t>(result.experts, used);
    found["weights"] = to_numpy2<float>(result.weights, used);
    found["pairs"] = to_numpy<int32_t>(result.pairs);
    found["tiles"] = to_numpy2<int32_t>(result.tiles, 3);
    found["sums"] = Array2<float>(sums, {x.shape(0), x.shape(1)}, owner);
    return found;
}

nb::dict time_experts(const Logits& logits, int n_used, const Values& expert_scale, const Logits& x,
                      const Matrices& gate_up, const std::string& gate_up_type, const Matrices& down,
                      const std::string& down_type, int n_runs, bool is_bf16) {
    const ExpertArguments arguments{logits, n_used, expert_scale, x, gate_up, gate_up_type, down, down_type, is_bf16};
    const dgemma::ExpertJob job = arguments.job();
    dgemma::ExpertTimes times;
    {
        const nb::gil_scoped_release release;
        times = dgemma::time_experts(job, n_runs);
    }
    nb::dict found;
    found["device"] = times.device;
    found["ours"] = times.ours;
    found["ggml"] = times.ggml;
    nb::dict kernels;
    for (const auto& [kernel, milliseconds] : times.kernels) kernels[kernel.c_str()] = milliseconds;
    found["kernels"] = kernels;
    found["distance"] = times.distance;
    return found;
}

using DenseWeights = std::vector<std::pair<Rows, std::string>>;

dgemma::DenseJob dense_job(const Logits& x, const DenseWeights& weights, bool is_gated, bool is_bf16,
                           bool gated_is_bf16, bool is_shared) {
    const size_t n = x.shape(0), k = x.shape(1);
    dgemma::DenseJob job{
        static_cast<int>(n), static_cast<int>(k), x.data(), {}, is_gated, is_bf16, gated_is_bf16, is_shared};
    for (const auto& [rows, type] : weights) {
        if (rows.shape(1) != dgemma::row_bytes(type, static_cast<int64_t>(k))) {
            throw nb::value_error("the weights are not [rows, columns of x]");
        }
        job.weights.push_back({type, static_cast<int>(rows.shape(0)), rows.data()});
    }
    if (is_gated && weights.size() != 2) throw nb::value_error("a gate and up");
    return job;
}

nb::list run_dense_on_card(const Logits& x, const DenseWeights& weights, bool is_gated, bool is_bf16,
                           bool gated_is_bf16, bool is_shared) {
    const size_t n = x.shape(0);
    const dgemma::DenseJob job = dense_job(x, weights, is_gated, is_bf16, gated_is_bf16, is_shared);
    std::vector<std::vector<float>> results;
    {
        const nb::gil_scoped_release release;
        results = dgemma::run_dense_on_card(job);
    }
    nb::list found;
    for (const auto& result : results) found.append(to_numpy2<float>(result, result.size() / n));
    return found;
}

nb::dict time_dense(const Logits& x, const DenseWeights& weights, bool is_gated, int n_runs) {
    const dgemma::DenseJob job = dense_job(x, weights, is_gated, /*is_bf16=*/false, /*gated_is_bf16=*/false, false);
    dgemma::DenseTimes times;
    {
        const nb::gil_scoped_release release;
        times = dgemma::time_dense(job, n_runs);
    }
    nb::dict found;
    found["device"] = times.device;
    found["ggml"] = times.ggml;
    found["int8"] = times.int8;
    found["bf16"] = times.bf16;
    found["int8_distance"] = times.int8_distance;
    found["bf16_distance"] = times.bf16_distance;
    return found;
}

using Heads = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Cells = nb::ndarray<const uint16_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

nb::dict run_heads_on_card(const Heads& q, const Heads& k, const Heads& v, const Values& q_norm, const Values& k_norm,
                           const Cells& keys, const Cells& values, int64_t position, float base,
                           const std::vector<float>& factors, float eps) {
    const auto dim = [](const auto& array, size_t axis) { return static_cast<int>(array.shape(axis)); };
    std::vector<float> rotated(q.data(), q.data() + q.size());
    std::vector<uint16_t> new_keys(keys.data(), keys.data() + keys.size());
    std::vector<uint16_t> new_values(values.data(), values.data() + values.size());
    const dgemma::HeadJob job{dim(q, 0),     dim(q, 1),     dim(k, 1),       dim(q, 2),        position, dim(keys, 0),
                              base,          eps,           factors,         rotated.data(),   k.data(), v.data(),
                              q_norm.data(), k_norm.data(), new_keys.data(), new_values.data()};
    {
        const nb::gil_scoped_release release;
        dgemma::run_heads_on_card(job);
    }
    nb::dict found;
    found["q"] = to_numpy<float>(rotated);
    found["keys"] = to_numpy<uint16_t>(new_keys);
    found["values"] = to_numpy<uint16_t>(new_values);
    return found;
}

/// The arguments that all functions of the experts have.
const std::string kExpertArguments =
    "(logits: NDArray[numpy.float32], n_used: int, expert_scale: NDArray[numpy.float32], x: NDArray[numpy.float32], "
    "gate_up: NDArray[numpy.uint8], gate_up_type: str, down: NDArray[numpy.uint8], down_type: str";

template <RunExperts run_experts>
void define_experts_as(nb::module_& m, const char* name, const char* doc) {
    const std::string signature =
        "def " + std::string(name) + kExpertArguments + ", is_bf16: bool = False) -> dict[str, typing.Any]";
    m.def(name, &experts<run_experts>, "logits"_a, "n_used"_a, "expert_scale"_a, "x"_a, "gate_up"_a, "gate_up_type"_a,
          "down"_a, "down_type"_a, "is_bf16"_a = false, nb::sig(signature.c_str()), doc);
}

using Inputs = std::map<std::string, std::vector<float>>;

nb::dict run_layer_rows(const std::string& name, int n, int hidden, const Inputs& inputs, float eps, bool is_bf16,
                        int experts, int used, float scale) {
    const dgemma::LayerRowsJob job{name, n, hidden, experts, used, eps, scale, is_bf16, inputs};
    dgemma::LayerRowsResult result;
    {
        const nb::gil_scoped_release release;
        result = dgemma::run_layer_rows_on_card(job);
    }
    nb::dict found;
    for (const auto& [made, values] : result.floats) found[made.c_str()] = to_numpy<float>(values);
    for (const auto& [made, values] : result.bytes) {
        found[(made + "_bytes").c_str()] = to_numpy<uint8_t>(values);
    }
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
    define_experts_as<dgemma::run_experts_on_card>(
        m, "run_experts_on_card",
        "One layer's experts as the CUDA kernels compute them: the chosen experts and their weights [n, n_used], the "
        "pairs in the experts' order, the tiles of work [tiles, 3] and the weighted sums [n, hidden]; activations of "
        "8 bits, or BF16. Raises BackendError where they cannot run.");
    define_experts_as<dgemma::define_experts>(m, "define_experts", "What run_experts_on_card computes, in plain C++.");
    const std::string timing =
        "def time_experts" + kExpertArguments + ", n_runs: int, is_bf16: bool = False) -> dict[str, typing.Any]";
    m.def(
        "time_experts", &time_experts, "logits"_a, "n_used"_a, "expert_scale"_a, "x"_a, "gate_up"_a, "gate_up_type"_a,
        "down"_a, "down_type"_a, "n_runs"_a, "is_bf16"_a = false, nb::sig(timing.c_str()),
        "One layer's experts by the CUDA kernels and by ggml's graph on the first card: milliseconds a layer of a few "
        "batches of n_runs, and how far apart their results are.");
    m.def("run_dense_on_card", &run_dense_on_card, "x"_a, "weights"_a, "is_gated"_a, "is_bf16"_a, "gated_is_bf16"_a,
          "is_shared"_a = false,
          nb::sig("def run_dense_on_card(x: NDArray[numpy.float32], weights: collections.abc.Sequence[tuple["
                  "NDArray[numpy.uint8], str]], is_gated: bool, is_bf16: bool, gated_is_bf16: bool, is_shared: bool = "
                  "False) -> "
                  "list[NDArray[numpy.float32]]"),
          "Products [n, rows] of x [n, k] and each of the weights as the CUDA kernels compute them, or the one "
          "gelu(gate x) * (up x) as the next product takes it; of x and of that either 8 bits or BF16. Raises "
          "BackendError where they cannot run.");
    m.def(
        "time_dense", &time_dense, "x"_a, "weights"_a, "is_gated"_a, "n_runs"_a,
        nb::sig("def time_dense(x: NDArray[numpy.float32], weights: collections.abc.Sequence[tuple["
                "NDArray[numpy.uint8], str]], is_gated: bool, n_runs: int) -> dict[str, typing.Any]"),
        "Those products by ggml's graph and by the CUDA kernels in 8 bits and in BF16, on the first card: milliseconds "
        "of a few batches of n_runs, and how far apart the results are.");
    m.def("run_layer_rows_on_card", &run_layer_rows, "name"_a, "n"_a, "hidden"_a, "inputs"_a, "eps"_a, "is_bf16"_a,
          "experts"_a = 1, "used"_a = 1, "scale"_a = 1.0f,
          nb::sig("def run_layer_rows_on_card(name: str, n: int, hidden: int, inputs: dict[str, "
                  "collections.abc.Sequence[float]], eps: float, is_bf16: bool, experts: int = 1, used: int = 1, "
                  "scale: float = 1.0) -> dict[str, typing.Any]"),
          "One of the functions between a layer's products as its CUDA kernel computes it: all of its arrays by "
          "name, flat; of rows for products, the values' bytes NAME_bytes and each group's d and d_sum NAME_scales. "
          "Raises BackendError where it cannot run.");
    m.def(
        "run_mask_on_card",
        [](int n_past, int n, int padded, int keys, int cells, int window, bool is_causal) {
            return to_numpy<uint16_t>(dgemma::run_mask_on_card({n_past, n, padded, keys, cells, window, is_causal}));
        },
        "n_past"_a, "n"_a, "padded"_a, "keys"_a, "cells"_a, "window"_a, "is_causal"_a,
        nb::sig("def run_mask_on_card(n_past: int, n: int, padded: int, keys: int, cells: int, window: int, is_causal: "
                "bool) -> NDArray[numpy.uint16]"),
        "A mask of attention [padded, keys], flat, F16 as bits, as the CUDA kernel writes it. Raises BackendError "
        "where "
        "it cannot run.");
    m.def("run_heads_on_card", &run_heads_on_card, "q"_a, "k"_a, "v"_a, "q_norm"_a, "k_norm"_a, "keys"_a, "values"_a,
          "position"_a, "base"_a, "factors"_a, "eps"_a,
          nb::sig("def run_heads_on_card(q: NDArray[numpy.float32], k: NDArray[numpy.float32], v: "
                  "NDArray[numpy.float32], q_norm: NDArray[numpy.float32], k_norm: NDArray[numpy.float32], keys: "
                  "NDArray[numpy.uint16], values: NDArray[numpy.uint16], position: int, base: float, factors: "
                  "collections.abc.Sequence[float], eps: float) -> dict[str, typing.Any]"),
          "Queries [n, heads, hd] normed and rotated, and the F16 cache [cells, kv_heads, hd] with keys and values "
          "[n, kv_heads, hd] written, all flat, as the CUDA kernel computes them. Raises BackendError where it cannot "
          "run.");
}
