"""The sampler's step against the reference's (fixtures) and against float64 (many shapes)."""

from __future__ import annotations

import numpy as np
import pytest

from dgemma import Engine, RequestError, entropy_bound_step
from oracle.cases import SAMPLER_CASES, TRACES, load_case
from oracle.reference_sampler import entropy_bound_step as float64_step


@pytest.mark.parametrize("name", SAMPLER_CASES)
def test_steps_of_the_reference(name: str) -> None:
    case = load_case(name)
    step = entropy_bound_step(case.logits, float(case.temperature), float(case.entropy_bound), case.u, case.noise)
    np.testing.assert_array_equal(step.argmax, case.argmax)
    np.testing.assert_array_equal(step.sampled, case.sampled)
    np.testing.assert_array_equal(step.accepted, case.accepted)
    np.testing.assert_array_equal(step.next_canvas, case.next_canvas)
    # The reference sums float32 terms; V of them of size p log p leave a few V^0.5 · 2^-24 · log V.
    np.testing.assert_allclose(step.entropy, case.entropy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_vocab", [2, 3, 15, 16, 17, 255, 1023, 1024, 1025, 4099])
@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("bound", [0.0, 0.1, 50.0])
def test_against_float64(n_vocab: int, scale: float, bound: float) -> None:
    rng = np.random.default_rng(n_vocab)
    logits = (scale * rng.standard_normal((9, n_vocab))).astype(np.float32)
    temperature, u = 0.6, rng.random(9)
    noise = rng.integers(0, n_vocab, 9, dtype=np.int32)
    ours = entropy_bound_step(logits, temperature, bound, u, noise)
    z = logits / np.float32(temperature)
    theirs = float64_step(z, bound, u, noise)
    np.testing.assert_array_equal(ours.argmax, theirs.argmax)
    # A float32 exponential is off by 2 ulp at most, and entropy sums V of them of relative weight p.
    np.testing.assert_allclose(ours.entropy, theirs.entropy, atol=4e-7 * max(1.0, np.log(n_vocab)) * 4)
    # u may fall within rounding of a token's edge, or a sum within rounding of the bound: nothing here does.
    np.testing.assert_array_equal(ours.sampled, theirs.sampled)
    if 0 < scale < 30:  # equal entropies, and those that are 0 in float32, are ordered by rounding
        np.testing.assert_array_equal(ours.accepted, theirs.accepted)
    assert ours.accepted.any()
    np.testing.assert_array_equal(ours.next_canvas, np.where(ours.accepted, ours.sampled, noise))


def test_draws_follow_the_distribution() -> None:
    """u on a fine grid gives each token in proportion to its probability, in the order of the vocabulary."""
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    u = (np.arange(1000) + 0.5) / 1000
    rows = np.repeat(logits[None], 1000, axis=0)
    step = entropy_bound_step(rows, 1.0, 1.0, u, np.zeros(1000, np.int32))
    assert np.bincount(step.sampled).tolist() == [500, 250, 125, 125]
    assert (np.diff(step.sampled) >= 0).all()


def test_the_last_token_can_be_drawn_and_the_impossible_cannot() -> None:
    logits = np.full((2, 3000), -200.0, np.float32)
    logits[:, 2999] = 50.0
    step = entropy_bound_step(logits, 1.0, 0.1, [0.0, 1 - 2**-53], [0, 0])
    assert step.sampled.tolist() == [2999, 2999]
    assert step.entropy.tolist() == [0.0, 0.0]


def test_ties_go_to_the_first() -> None:
    step = entropy_bound_step(np.zeros((3, 40), np.float32), 0.5, 0.0, [0.0, 0.5, 0.999], [7, 8, 9])
    assert step.argmax.tolist() == [0, 0, 0]
    assert step.sampled.tolist() == [0, 20, 39]
    assert step.accepted.tolist() == [True, False, False]
    assert step.next_canvas.tolist() == [0, 8, 9]
    np.testing.assert_allclose(step.entropy, np.log(40), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"logits": np.zeros(5, np.float32)}, r"shape \[C, V\]"),
        ({"logits": np.zeros((0, 5), np.float32)}, r"shape \[C, V\]"),
        ({"u": [0.5]}, "one value for each of the 2 positions"),
        ({"noise": [1, 2, 3]}, "one value for each of the 2 positions"),
        ({"u": [0.5, 1.0]}, r"every u must lie in \[0, 1\)"),
        ({"u": [0.5, np.nan]}, r"every u must lie in \[0, 1\)"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"entropy_bound": -1.0}, "entropy_bound at least 0"),
    ],
)
def test_arguments_out_of_range(change: dict, sentence: str) -> None:
    arguments = {
        "logits": np.zeros((2, 5), np.float32),
        "temperature": 1.0,
        "entropy_bound": 0.1,
        "u": [0.1, 0.2],
        "noise": [1, 2],
    }
    with pytest.raises(RequestError, match=sentence):
        entropy_bound_step(**(arguments | change))


def test_tokens_that_cannot_be() -> None:
    """Minus infinity is a token without mass; it says nothing about the others' entropy."""
    logits = np.full((1, 40), -np.inf, np.float32)
    logits[0, [3, 30]] = [1.0, 2.0]
    step = entropy_bound_step(logits, 1.0, 0.1, [0.9], [0])
    p = 1 / (1 + np.e)
    assert step.entropy[0] == pytest.approx(-p * np.log(p) - (1 - p) * np.log(1 - p), rel=1e-6)
    assert step.sampled[0] == 30


def test_logits_that_are_not_numbers() -> None:
    from dgemma import Error

    logits = np.zeros((2, 5), np.float32)
    logits[1, 3] = np.nan
    with pytest.raises(Error, match="canvas position 1 are not numbers"):
        entropy_bound_step(logits, 1.0, 0.1, [0.1, 0.2], [1, 2])


@pytest.mark.parametrize("name", [trace.name for trace in TRACES])
def test_generations_of_the_reference(model_path, name: str) -> None:
    """The reference's whole answer, step by step, with the random numbers it used: every decision is the same."""
    trace = load_case(name)
    session = Engine(model_path(name), n_ctx=128, exact=True).session()
    session.prefill(trace.prompt)
    previous = None
    for t, block in enumerate(trace.block):
        if t > 0 and block != trace.block[t - 1]:
            session.prefill(trace.argmax[t - 1])
            previous = None
        logits = session.denoise(trace.canvas[t], previous)
        bound = 2e-3 + 10 * trace.rounding[t]
        np.testing.assert_allclose(logits[:, trace.columns], trace.logits[t], atol=bound)
        temperature = float(trace.temperature[t])
        step = entropy_bound_step(logits, temperature, trace.config.sampler.entropy_bound, trace.u[t], trace.noise[t])
        np.testing.assert_array_equal(step.argmax, trace.argmax[t])
        np.testing.assert_array_equal(step.sampled, trace.sampled[t])
        np.testing.assert_array_equal(step.accepted, trace.accepted[t])
        previous = logits / np.float32(temperature)
