"""The numpy reference against what ``transformers`` answered. Needs numpy only."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from oracle.cases import NETWORK_CASES, SAMPLER_CASES, TRACES, checkpoint_for, load_arrays, load_case
from oracle.reference import Reference, replay
from oracle.reference_sampler import (
    Recorded,
    Step,
    StopRule,
    accept,
    entropy_bound_step,
    first_end,
    generate,
    temperature,
)
from random_checkpoint import CheckpointConfig, SamplerConfig

# A fixture is as far from the exact logits as its ``rounding`` says, and numpy in float32 about as far on another side:
# twice that between them is what to expect (measured: up to 1.8 times), four times is allowed.
FLOAT32_TIMES = 4
EPSILON = np.finfo(np.float32).eps


@pytest.fixture(scope="module", params=[case.name for case in NETWORK_CASES])
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    return load_case(request.param)


@pytest.fixture(scope="module")
def folder(case: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory):
    return checkpoint_for(case, tmp_path_factory.mktemp("checkpoint"))


def worst_by_step(ours: np.ndarray, case: SimpleNamespace) -> np.ndarray:
    """Largest difference of each block and step [B, S]."""
    return np.abs(ours - case.logits).max(axis=(2, 3))


def test_float64_logits_differ_by_the_recorded_rounding(case: SimpleNamespace, folder) -> None:
    worst = worst_by_step(replay(Reference(folder, np.float64), case), case)
    # 1 %: exp and tanh differ in the last bit between builds of numpy
    assert worst == pytest.approx(case.rounding, rel=0.01)
    assert worst.max() < 1e-3  # half of what the engine may differ by


def test_float32_logits_agree_in_pieces_too(case: SimpleNamespace, folder) -> None:
    model = Reference(folder)
    for pieces in (None, case.chunks):
        assert (worst_by_step(replay(model, case, pieces), case) < FLOAT32_TIMES * case.rounding).all()


def test_no_route_hangs_on_rounding(case: SimpleNamespace) -> None:
    assert case.router_margin > 200 * EPSILON


def test_conditioning_and_canvas_matter(case: SimpleNamespace) -> None:
    """The fixtures tell the steps apart: otherwise agreement would prove little."""
    assert case.logits.std() == pytest.approx(1.3, abs=0.15)
    assert np.abs(case.logits[:, 1] - case.logits[:, 0]).max() > 1


def test_both_spellings_are_the_same_network(tmp_path) -> None:
    case = load_case("edge")
    released, per_layer = (
        replay(Reference(checkpoint_for(case, tmp_path, spelling=spelling)), case)
        for spelling in ("released", "per_layer")
    )
    assert np.array_equal(released, per_layer)


@pytest.mark.parametrize("name", [trace.name for trace in TRACES])
def test_generation_goes_the_recorded_way(name: str, tmp_path) -> None:
    trace = load_case(name)
    model, sampling = Reference(checkpoint_for(trace, tmp_path)), trace.config.sampler
    steps = list(generate(model, trace.prompt, sampling, Recorded(trace), blocks=3, end_tokens=trace.config.end_tokens))
    assert [s.block for s in steps] == trace.block.tolist()
    assert np.array_equal([s.canvas for s in steps], trace.canvas)
    for decision in ("argmax", "sampled", "accepted"):
        assert np.array_equal([getattr(s.step, decision) for s in steps], getattr(trace, decision)), decision
    assert np.allclose([s.temperature for s in steps], trace.temperature, rtol=4 * EPSILON)
    worst = np.abs(np.stack([s.logits[:, trace.columns] for s in steps]) - trace.logits).max(axis=(1, 2))
    assert worst.max() < FLOAT32_TIMES * trace.rounding.max()
    # an error d of the logits moves a row's entropy by no more than about d/t times its spread, a few
    entropy_error = np.abs(np.stack([s.step.entropy for s in steps]) - trace.entropy).max()
    assert entropy_error < 10 * FLOAT32_TIMES * trace.rounding.max() / trace.temperature.min()
    finished = np.concatenate([s.step.argmax for s in steps if s.last])
    end = first_end(finished, trace.config.end_tokens)
    assert np.array_equal(finished[: end + 1], trace.sequence[len(trace.prompt) :][: end + 1])
    assert not trace.sequence[len(trace.prompt) :][end + 1 :].any()  # <pad> is 0


@pytest.mark.parametrize("name", SAMPLER_CASES)
def test_sampler_step(name: str) -> None:
    case = load_case(name)
    ours: Step = entropy_bound_step(case.logits / case.temperature, case.entropy_bound, case.u, case.noise)
    # an entropy is a sum over V terms of at most 1/e each; float32 adds them in pairs: log2(V) roundings, and as many
    # in the softmax. Measured: 2e-6
    tolerance = 2 * np.log2(case.logits.shape[1]) * EPSILON * case.entropy.max()
    assert np.abs(ours.entropy - case.entropy).max() < max(tolerance, EPSILON)
    for decision in ("argmax", "sampled", "accepted", "next_canvas"):
        assert np.array_equal(getattr(ours, decision), getattr(case, decision)), decision


def test_ties_are_accepted_in_the_order_of_the_canvas() -> None:
    entropy = np.array([0.5, 0.25, 0.5, 0.25, 0.5])
    assert accept(entropy, 1.0).tolist() == [True, True, True, True, False]


def test_at_least_one_position_is_accepted() -> None:
    assert load_case("bound_0").accepted.sum() == 1
    assert load_case("one_position").accepted.all()


def test_temperature_schedule() -> None:
    case = SimpleNamespace(**load_arrays("temperature"))
    for steps, low, high, expected in zip(case.steps, case.t_min, case.t_max, case.temperature, strict=True):
        sampling = SamplerConfig(max_denoising_steps=int(steps), t_min=low, t_max=high)
        ours = [temperature(sampling, remaining) for remaining in range(steps, 0, -1)]
        assert np.allclose(ours, expected[:steps], rtol=4 * EPSILON, atol=0)
        assert np.isnan(expected[steps:]).all()


def test_stop_rule() -> None:
    case = SimpleNamespace(**load_arrays("stop_rule"))
    nothing = np.zeros(case.z.shape[1])
    for threshold, expected in zip(case.thresholds, case.stopped, strict=True):
        rule = StopRule(SamplerConfig(stability_threshold=int(threshold), confidence_threshold=float(case.confidence)))
        assert [rule(entropy_bound_step(z, 0.1, nothing, nothing)) for z in case.z] == expected.tolist()
    assert case.stopped.any(axis=1).all()
    assert not case.stopped[1:, 0].any()  # the first step cannot be stable


def test_end_tokens() -> None:
    case = SimpleNamespace(**load_arrays("end_tokens"))
    for canvas, padded, finished in zip(case.canvas, case.padded, case.finished, strict=True):
        end = first_end(canvas, case.end_tokens)
        assert (end < len(canvas)) == finished
        assert np.array_equal(canvas[: end + 1], padded[: end + 1])
        assert not padded[end + 1 :].any()


def test_routing_is_not_degenerate(tmp_path) -> None:
    """Random weights must use every expert, or the mixture would go untested."""
    seen: set[int] = set()

    class Watched(Reference):
        def _route(self, i, h):
            experts, shares = super()._route(i, h)
            seen.update(experts.ravel().tolist())
            assert 0.55 < shares[:, 0].mean() < 0.9  # of two experts the first does more, but not all
            return experts, shares

    case = load_case("short")
    replay(Watched(checkpoint_for(case, tmp_path)), case)
    assert seen == set(range(CheckpointConfig().experts))
