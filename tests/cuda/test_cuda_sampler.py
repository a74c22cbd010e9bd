"""The canvas sampler's kernels against plain arithmetic and against the CPU's sampler, at every awkward size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import Problem, rows_of

from dgemma import Error, RequestError, entropy_bound_step

# An exponential of d is off by a few 1e-7 of itself and 1e-7 d, and what has mass has no large d.
P_ROUNDING = 3e-6


def problem(kind: str, n: int, vocab: int, **fields: Any) -> Problem:
    return Problem(rows_of(kind, n, vocab, np.random.default_rng([n, vocab])), **fields)


def check_rows(problem: Problem, found: dict[str, Any]) -> None:
    """Argmax, draw and entropy of each row, up to what rounding can move."""
    z, p, rows = problem.z, problem.softmax, np.arange(len(problem.logits))
    best = z.max(axis=1)
    assert (z[rows, found["argmax"]] >= best - 2 * problem.z_rounding).all()
    if problem.soft_cap == 0:
        np.testing.assert_array_equal(found["argmax"], z.argmax(axis=1))  # the first of equals
    edge = P_ROUNDING + 4 * problem.z_rounding
    after = p.cumsum(axis=1)[rows, found["sampled"]]
    before = after - p[rows, found["sampled"]]
    assert (before - edge <= problem.u).all()
    assert (problem.u <= after + edge).all()
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(found["entropy"], entropy, atol=(4e-6 + 8 * problem.z_rounding) * np.log(p.shape[1] + 2))


def check_acceptance(problem: Problem, found: dict[str, Any]) -> None:
    """The accepted are those of least entropy, as many as the bound lets in, up to its rounding."""
    entropy, accepted = found["entropy"].astype(np.float64), found["accepted"]
    n = int(accepted.sum())
    order = np.argsort(entropy, kind="stable")
    earlier = np.concatenate([[0.0], entropy[order].cumsum()])
    assert n >= 1
    assert earlier[n - 1] <= problem.entropy_bound + 1e-5
    assert n == len(entropy) or earlier[n] > problem.entropy_bound - 1e-5
    assert entropy[accepted].max() <= entropy[~accepted].min(initial=np.inf) + 1e-6
    np.testing.assert_array_equal(found["next_canvas"], np.where(accepted, found["sampled"], problem.noise))
    np.testing.assert_array_equal(found["canvas_on_card"], found["next_canvas"])
    assert found["mean_entropy"] == pytest.approx(entropy.mean(), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("kind", ["flat", "sharp", "mixed"])
@pytest.mark.parametrize("vocab", [1, 2, 3, 63, 255, 4095, 4096, 4097, 8195])
@pytest.mark.parametrize("soft_cap", [0.0, 30.0])
def test_a_step(card, kind: str, vocab: int, soft_cap: float) -> None:
    step = problem(kind, 5, vocab, soft_cap=soft_cap)
    found = step.solved_by(card)
    check_rows(step, found)
    check_acceptance(step, found)


@pytest.mark.parametrize("bound", [0.0, 0.1, 3.0, 1e9])
@pytest.mark.parametrize("n", [1, 33, 256, 700])
def test_acceptance(card, n: int, bound: float) -> None:
    step = problem("mixed", n, 7, entropy_bound=bound)
    found = step.solved_by(card)
    check_rows(step, found)
    check_acceptance(step, found)


@pytest.mark.parametrize("kind", ["flat", "sharp", "mixed"])
@pytest.mark.parametrize("vocab", [3, 500, 4100])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_the_same_decisions_as_the_cpu(card, kind: str, vocab: int, seed: int) -> None:
    """Bit for bit: no number here lies within rounding of an edge."""
    step = problem(kind, 9, vocab, seed=seed)
    found = step.solved_by(card)
    twin = entropy_bound_step(step.logits, step.temperature, step.entropy_bound, step.u, step.noise)
    for name in ("argmax", "sampled", "accepted", "next_canvas"):
        np.testing.assert_array_equal(found[name], getattr(twin, name))
    np.testing.assert_allclose(found["entropy"], twin.entropy, atol=1e-5)


def test_equal_logits(card) -> None:
    """Equal entropies go by position, and of equal logits the first is the argmax."""
    step = Problem(np.zeros((40, 6000), np.float32), entropy_bound=3.5 * np.log(6000))
    found = step.solved_by(card)
    assert (found["argmax"] == 0).all()
    np.testing.assert_array_equal(found["accepted"], np.arange(40) < 4)
    check_rows(step, found)


def test_tokens_that_cannot_be(card) -> None:
    """Minus infinity is a token without mass, also where it is all that a block sees."""
    logits = np.full((3, 9000), -np.inf, np.float32)
    logits[:, [10, 8500]] = [1.0, 2.0]
    found = Problem(logits, temperature=1.0, soft_cap=0.0).solved_by(card)
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(found["entropy"], -p * np.log(p) - (1 - p) * np.log(1 - p), rtol=1e-6)
    assert set(found["sampled"]) <= {10, 8500}
    assert (found["argmax"] == 8500).all()


def test_the_last_token_can_be_drawn(card) -> None:
    logits = np.full((2, 8193), -200.0, np.float32)
    logits[:, -1] = 50.0
    assert (Problem(logits).solved_by(card)["sampled"] == 8192).all()


@pytest.mark.parametrize("place", [0, 4098])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number(card, place: int, value: float) -> None:
    step = problem("flat", 3, 5000)
    step.logits[1, place] = value
    with pytest.raises(Error, match="canvas position 1 are not numbers"):
        step.solved_by(card)


def test_what_the_stop_rule_asks(card) -> None:
    now, other = (rows_of("sharp", 20, 300, np.random.default_rng(i)) for i in (1, 2))
    almost = now.copy()
    almost[17, (now[17].argmax() + 1) % 300] = 1e4
    for before, unchanged in ((None, False), (other, False), (almost, False), (now, True)):
        assert Problem(now, before).solved_by(card)["unchanged"] is unchanged


def test_every_run_is_the_same(card) -> None:
    """Byte for byte, although the emulation's threads take turns in another order each time."""
    step = problem("mixed", 6, 5003, soft_cap=30.0, max_kept=50).with_embedding("F16", 96)
    first, *others = (step.solved_by(card) for _ in range(3))
    for other in others:
        for name, value in first.items():
            np.testing.assert_array_equal(value, other[name])


def test_bounds(card) -> None:
    sentence = "a canvas of 1 to 1024 positions, a vocabulary of 1 to 4194304 tokens and passes of at most 65535"
    for n, vocab, n_tokens in ((1025, 3, 0), (0, 3, 0), (3, 0, 0), (3, 3, 65536)):
        logits = np.zeros((n, vocab), np.float32)
        with pytest.raises(RequestError, match=sentence):
            Problem(logits, embedding=np.zeros((vocab, 32), np.uint8), tokens=(0,) * n_tokens).solved_by(card)
    with pytest.raises(RequestError, match="temperature must be above 0"):
        problem("flat", 2, 3, temperature=0.0).solved_by(card)
