"""The engine's logits against those of ``transformers``, which the fixtures hold."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dgemma import Engine, Session
from dgemma._core import has_own_attention
from oracle.cases import NETWORK_CASES, load_case

CASES = [case.name for case in NETWORK_CASES]


def n_ctx(case: SimpleNamespace) -> int:
    """Just enough positions for the prompt and every canvas."""
    return len(case.prompt) + case.canvas.shape[0] * case.canvas.shape[2]


def prefill(session: Session, ids: np.ndarray, pieces: tuple[int, ...]) -> None:
    for piece in np.split(ids, np.cumsum(pieces)[:-1]):
        session.prefill(piece)


def logit_errors(session: Session, case: SimpleNamespace) -> list[np.ndarray]:
    """For each pass of each block, engine minus reference [R, V]; the prompt is in the cache already."""
    errors = []
    for block, canvases in enumerate(case.canvas):
        previous = None
        for step, canvas in enumerate(canvases):
            logits = session.denoise(canvas, previous)
            errors.append(logits[case.rows] - case.logits[block, step])
            previous = logits / case.temperature[step]
        if block < len(case.finished):
            session.prefill(case.finished[block])
    return errors


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("how", ["whole", "pieces", "small_batch", "one_thread"])
def test_float32_logits_agree_to_rounding(model_path, name: str, how: str) -> None:
    """First and conditioned steps, every block; the prompt encoded at once, in calls, and in chunks of seven."""
    case = load_case(name)
    options = {"small_batch": {"n_batch": 7}, "one_thread": {"n_threads": 1}}.get(how, {})
    with Engine(model_path(name), n_ctx=n_ctx(case), exact=True, **options) as engine:
        session = engine.session()
        prefill(session, case.prompt, case.chunks if how == "pieces" else (len(case.prompt),))
        errors = logit_errors(session, case)
    assert session.n_past == len(case.prompt) + case.finished.size
    # case.rounding is what float32 rounding does to the reference itself; ten times that for another order of sums.
    # RoPE adds its own: at position p the angle is p times a rounded frequency in the reference and a product of
    # rounded factors here, so both are off by up to p · 2^-24 radians, seen at p = 1756 as 4e-5 on the logits.
    for error, rounding in zip(errors, case.rounding.ravel(), strict=True):
        bound = 10 * rounding + n_ctx(case) * 2.0**-24
        assert np.abs(error).max() < bound < 2e-3 + 10 * rounding


# Relative rms error that a type adds to one weight or activation: rounding to 11 or 8 significant bits gives
# 2^-12 or 2^-9 / sqrt(3); Q8_0 rounds to steps of max / 127, and the largest of 32 Gaussians lies near 2.2 sigma.
TYPE_ERROR = {"f16": 2.0**-11 / 3**0.5, "bf16": 2.0**-8 / 3**0.5, "q8_0": 2.2 / 127 / 12**0.5}


@pytest.mark.parametrize("name", ["short", "long", "crossing", "heads256", "hidden256"])
@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0"])
def test_smaller_weights_move_logits_by_their_rounding(model_path, name: str, type: str) -> None:
    """ggml rounds the activations of a product like its weights (Q8_0 for Q8_0), so each product adds sqrt(2) of
    the type's error. About 6 products in a row a layer and the head add up in quadrature on logits that spread by
    their standard deviation. The median row is compared, at the first step: a flipped expert moves a row by much more,
    and conditioning carries that on. Four times the estimate, for norms that amplify; a wrong scale or a swapped row
    moves the logits by their whole spread, thirty times as much as Q8_0 may.
    """
    case = load_case(name)
    with Engine(model_path(name, type), n_ctx=n_ctx(case), kv_type="f32") as engine:
        session = engine.session()
        session.prefill(case.prompt)
        first = logit_errors(session, case)[0]
        products = 6 * engine.info.n_layer + 1
    spread = case.logits[0, 0].std()
    estimate = TYPE_ERROR[type] * 2**0.5 * products**0.5 * spread
    assert np.median(np.sqrt((first**2).mean(axis=1))) < 4 * estimate < spread


@pytest.mark.parametrize("name", ["short", "long", "crossing", "heads256", "hidden256", "real_window"])
def test_the_normal_mode_moves_logits_by_the_rounding_in_attention(model_path, name: str) -> None:
    """Keys and values in F16, one rounding each a layer; where attention is our own, they, the queries and the
    softmax's weights in BF16. GELU is exact on the CPU in any mode."""
    case = load_case(name)
    with Engine(model_path(name), n_ctx=n_ctx(case)) as engine:
        session = engine.session()
        session.prefill(case.prompt)
        first = logit_errors(session, case)[0]
        type, factors = ("bf16", 4) if has_own_attention() else ("f16", 2)
        roundings = factors * engine.info.n_layer
    estimate = TYPE_ERROR[type] * roundings**0.5 * case.logits[0, 0].std()
    assert 0 < np.median(np.sqrt((first**2).mean(axis=1))) < 4 * estimate


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 12.0])
def test_the_mass_that_conditioning_leaves_out_hardly_matters(model_path, sharpness: float) -> None:
    """The normal mode drops at most 1e-4 of each softmax: the soft embedding, a mean of embedding rows, moves by at
    most 2e-4 of a row's norm, and through the self-conditioning block and three layers the logits by no more than ten
    times that share of their spread (a step multiplies a disturbance by 5.5 at most in the fixtures)."""
    case = load_case("long")
    previous = sharpness * case.logits[0, 0] / case.temperature[0]
    results = []
    for exact in (True, False):
        with Engine(model_path("long"), n_ctx=n_ctx(case), kv_type="f32", exact=exact) as engine:
            session = engine.session()
            session.prefill(case.prompt)
            results.append(session.denoise(case.canvas[0, 1], previous))
    assert np.abs(results[0] - results[1]).max() < 10 * 2e-4 * results[0].std()
    if sharpness > 1:
        assert (results[0] != results[1]).any()  # something was left out


@pytest.mark.parametrize("name", ["long", "heads256"])
def test_bits_do_not_depend_on_threads(model_path, name: str) -> None:
    case = load_case(name)
    results = []
    for n_threads in (1, 2, 3, 5):
        with Engine(model_path(name), n_ctx=n_ctx(case), n_threads=n_threads) as engine:
            session = engine.session()
            session.prefill(case.prompt[:1])  # one row, the case in which flash attention splits its keys by thread
            session.prefill(case.prompt[1:])
            first = session.denoise(case.canvas[0, 0])
            results.append(session.denoise(case.canvas[0, 1], first / case.temperature[0]))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
