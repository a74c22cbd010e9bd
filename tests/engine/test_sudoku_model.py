"""The trained model end to end: right answers, the reference's decisions, and every part of the network at work."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dgemma import DoneEvent, Engine, StepEvent, Tokenizer
from dgemma.convert import convert
from dgemma.demo import TYPE, checkpoint
from dgemma.evaluation import Evaluation, chat_ids, evaluate, load_questions
from oracle.cases import load_arrays
from oracle.reference import Cache, Reference, read_weights
from oracle.reference_sampler import StopRule
from sudoku.checkpoint import CONFIG, HELD_OUT

RESULTS = json.loads(HELD_OUT.with_name("results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sudoku")
    paths = {type: folder / f"sudoku-{type}.gguf" for type in ("f32", TYPE)}
    for type, path in paths.items():
        convert(checkpoint(), path, type)
    return paths


@pytest.fixture(scope="module", params=["f32", TYPE])
def evaluation(request: pytest.FixtureRequest, models: dict[str, Path]) -> Evaluation:
    """Twenty fixed puzzles, with fixed seeds."""
    return evaluate(models[request.param], load_questions(HELD_OUT, limit=20), n_threads=1)


def test_twenty_puzzles(evaluation: Evaluation) -> None:
    """At least what was measured on a thousand, less three standard errors of twenty."""
    claimed = RESULTS["reference"]["right"] / RESULTS["reference"]["questions"]
    error = math.sqrt(max(claimed * (1 - claimed), 0.01) / 20)
    assert evaluation.rate >= claimed - 3 * error


def test_the_canvas_stops_early(evaluation: Evaluation) -> None:
    assert evaluation.mean_steps < CONFIG.sampler.max_denoising_steps / 2
    assert evaluation.stopped_early >= 0.8


def test_step_counts_are_the_reference_s_in_distribution(models: dict[str, Path]) -> None:
    """Other random numbers, the same distribution: means of the same puzzles within four standard errors."""
    ours = np.array(
        [one.steps for one in evaluate(models["f32"], load_questions(HELD_OUT, limit=60), n_threads=1).attempts]
    )
    theirs = np.array(RESULTS["reference"]["steps"])
    error = theirs.std() * math.sqrt(1 / len(ours) + 1 / len(theirs))
    assert abs(ours.mean() - theirs.mean()) < 4 * error


def test_the_reference_s_decisions(models: dict[str, Path]) -> None:
    """Given the engine's random numbers, transformers decided the same, at every step of eight puzzles."""
    fixture, questions = load_arrays("sudoku"), load_questions(HELD_OUT)
    tokenizer = Tokenizer.from_gguf(models["f32"])
    engine = Engine(models["f32"], exact=True, n_threads=1)
    for number, (question, seed) in enumerate(zip(fixture["question"], fixture["seed"], strict=True)):
        prompt = chat_ids(tokenizer, questions[question].prompt)
        events = engine.generate(prompt, max_new_tokens=CONFIG.canvas, seed=int(seed))
        steps = [event for event in events if isinstance(event, StepEvent)]
        mine = fixture["puzzle"] == number
        theirs = {name: fixture[name][mine] for name in ("canvas", "argmax", "accepted", "entropy", "stopped")}
        assert len(steps) == len(theirs["argmax"])
        assert [s.argmax.tolist() for s in steps] == theirs["argmax"].tolist()
        assert [s.accepted.tolist() for s in steps] == theirs["accepted"].tolist()
        assert [s.canvas.tolist() for s in steps[:-1]] == theirs["canvas"][1:].tolist()
        np.testing.assert_allclose([s.entropy for s in steps], theirs["entropy"], atol=1e-3)
        early = len(steps) < CONFIG.sampler.max_denoising_steps
        assert theirs["stopped"].tolist() == [False] * (len(steps) - 1) + [early]


def test_the_stop_fires_for_the_reference_s_reason(models: dict[str, Path]) -> None:
    tokenizer, engine = Tokenizer.from_gguf(models[TYPE]), Engine(models[TYPE], n_threads=1)
    for seed, question in enumerate(load_questions(HELD_OUT, limit=5)):
        rule, fired, done = StopRule(CONFIG.sampler), [], None
        for event in engine.generate(chat_ids(tokenizer, question.prompt), max_new_tokens=CONFIG.canvas, seed=seed):
            if isinstance(event, StepEvent):
                fired.append(rule(event))  # type: ignore[arg-type]  # it has argmax and entropy
            elif isinstance(event, DoneEvent):
                done = event
        assert not any(fired[:-1])
        assert fired[-1] or len(fired) == CONFIG.sampler.max_denoising_steps
        assert done is not None
        assert done.reason == "stop"  # at <turn|>, the last position of the canvas


def test_the_scalars_were_learned() -> None:
    """Encoder and decoder scalars differ. The encoder's last changes nothing: of the last layer it keeps keys and
    values. Those are made of a normalised input, so that the one before has learned of the balancing loss alone."""
    weights = read_weights(checkpoint(), np.float32)
    for i in range(CONFIG.layers):
        decoder = weights[f"model.decoder.layers.{i}.layer_scalar"]
        encoder = weights[f"model.encoder.language_model.layers.{i}.layer_scalar"]
        assert decoder != 1
        assert encoder != decoder
        assert (encoder != 1) == (i < CONFIG.layers - 1)


def test_every_part_is_at_work(models: dict[str, Path]) -> None:
    """A window that slides, routers that tell tokens apart, a signal from the step before."""
    model, fixture = Watched(checkpoint()), load_arrays("sudoku")
    tokenizer, questions = Tokenizer.from_gguf(models["f32"]), load_questions(HELD_OUT)
    for number, question in enumerate(fixture["question"]):
        ids, cache = chat_ids(tokenizer, questions[question].prompt), Cache()
        assert len(ids) > CONFIG.window
        model.encode(ids, cache)
        first, second = fixture["canvas"][fixture["puzzle"] == number][:2]
        z = model.decode(first, cache) / np.float32(0.8)
        plain, conditioned = (model.decode(second, cache, previous) for previous in (None, z))
        assert np.abs(plain - conditioned).max() > 1
    used = [len(experts) for experts in model.met.values()]
    assert sum(count > CONFIG.experts_used for count in used) >= CONFIG.layers - 1


class Watched(Reference):
    """Notes which experts of each layer have had a token."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.met: dict[int, set[int]] = {}

    def _route(self, i: int, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        experts, shares = super()._route(i, h)
        self.met.setdefault(i, set()).update(np.unique(experts).tolist())
        return experts, shares
