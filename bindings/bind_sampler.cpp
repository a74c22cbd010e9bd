#include <nanobind/stl/string.h>

#include "bindings.h"
#include "dgemma/dgemma.h"

using namespace nb::literals;

using Logits = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Draws = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void init_sampler(nb::module_& m) {
    nb::class_<dgemma::SamplerStep>(m, "SamplerStep", "What one step of the sampler decided; arrays of [C].")
        .def_prop_ro(
            "argmax", [](const dgemma::SamplerStep& s) { return to_numpy<int32_t>(s.argmax); }, nb::rv_policy::move)
        .def_prop_ro(
            "sampled", [](const dgemma::SamplerStep& s) { return to_numpy<int32_t>(s.sampled); }, nb::rv_policy::move)
        .def_prop_ro(
            "entropy", [](const dgemma::SamplerStep& s) { return to_numpy<float>(s.entropy); }, nb::rv_policy::move)
        .def_prop_ro(
            "accepted", [](const dgemma::SamplerStep& s) { return to_numpy<bool>(s.accepted); }, nb::rv_policy::move)
        .def_prop_ro(
            "next_canvas", [](const dgemma::SamplerStep& s) { return to_numpy<int32_t>(s.next_canvas); },
            nb::rv_policy::move);
    m.def(
        "entropy_bound_step",
        [](const Logits& logits, double temperature, double entropy_bound, const Draws& u, const Tokens& noise) {
            const nb::gil_scoped_release release;
            return dgemma::entropy_bound_step(logits.data(), static_cast<int>(logits.shape(0)),
                                              static_cast<int>(logits.shape(1)), temperature, entropy_bound, u.data(),
                                              noise.data());
        },
        "logits"_a, "temperature"_a, "entropy_bound"_a, "u"_a, "noise"_a,
        "The sampler's step on [C, V] logits. Shapes are the caller's to check (dgemma.entropy_bound_step does).");
}
