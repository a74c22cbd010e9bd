"""What an engine answers, as plain values: the same functions run here and in the emulation's process."""

from __future__ import annotations

from typing import Any

import numpy as np

PROMPT = [2, 105, 300, 301, 302, 106]


def generate(model: str, seed: int, tokens: int = 48, layers: int = -1) -> list[dict[str, Any]]:
    """Every step of an answer."""
    from dgemma import Engine, StepEvent

    with Engine(model, n_ctx=128, n_threads=1, n_gpu_layers=layers) as engine:
        events = engine.generate(PROMPT, max_new_tokens=tokens, seed=seed, config=_config())
        return [_step(event) for event in events if isinstance(event, StepEvent)]


def _config() -> Any:
    from dgemma import GenerationConfig

    return GenerationConfig(max_denoising_steps=12, entropy_bound=2.0, confidence_threshold=0.05)


def _step(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in ("block", "step", "canvas", "argmax", "accepted", "entropy")}


def conditioned_logits(model: str, previous: np.ndarray) -> np.ndarray:
    """A decoder pass that is conditioned on logits of the caller's."""
    from dgemma import Engine

    with Engine(model, n_ctx=128, n_threads=1) as engine:
        session = engine.session()
        session.prefill(PROMPT)
        return session.denoise([300] * engine.info.canvas_length, previous)


def sampler_memory(model: str) -> tuple[int, int]:
    """The bytes of the sampler as planned, and once a session is there."""
    from dgemma import Engine

    with Engine(model, n_ctx=128, n_threads=1) as engine:
        planned = engine.memory["CPU"]["sampler"]
        session = engine.session()
        session.prefill(PROMPT)
        return planned, engine.memory["CPU"]["sampler"]


def closed_at_once(model: str) -> bool:
    """A session that was never used, with what it queued on the card when it was made."""
    from dgemma import Engine

    with Engine(model, n_ctx=128, n_threads=1) as engine:
        engine.session()
    return True


def place(model: str, library: str) -> dict[str, Any]:
    """By placement on two stand-in cards: every step of an answer, memory as planned and as taken, and what each step
    moved between host and first card and how many of its graphs were repeated there."""
    from engine.standin_worker import PLACEMENTS, RESERVE, ROOM, Cards

    cards = Cards(library, [RESERVE + ROOM, RESERVE + ROOM])
    return {name: _on_cards(model, cards, placement) for name, placement in PLACEMENTS.items()}


def _on_cards(model: str, cards: Any, placement: dict[str, Any]) -> dict[str, Any]:
    from dgemma import Engine, StepEvent

    def counts() -> np.ndarray:
        return np.array([[cards.moved(i), cards.graphs(i), cards.repeated(i)] for i in (0, 1)])

    with Engine(model, n_ctx=256, n_threads=1, **placement) as engine:
        planned, session = engine.memory, engine.session()
        session.prefill(list(range(2, 60)))  # more than a canvas
        steps, before = [], counts()
        for event in session.generate(PROMPT, max_new_tokens=40, seed=3, config=_config()):
            if isinstance(event, StepEvent):
                steps.append({**_step(event), "counts": counts() - before})
            before = counts()
        found = {"steps": steps, "planned": planned, "taken": engine.memory}
        return {**found, "callers": _callers_canvases(engine)}


def own_layers(model: str, library: str, card: str, lengths: tuple[int, ...]) -> dict[str, Any]:
    """By whose kernels compute the layers, on one stand-in card: logits of both passes at several lengths, an answer,
    memory as planned and as taken, parts of a step, and graphs that later steps ran and repeated."""
    from engine.standin_worker import RESERVE, ROOM, Cards

    cards = Cards(library, [RESERVE + ROOM], card)
    return {whose: _with_layers(model, cards, whose, lengths) for whose in ("ggml", "own")}


def pass_logits(session: Any, n: int, lengths: tuple[int, ...]) -> list[np.ndarray]:
    """Of passes of both kinds after so many tokens; each conditioned one on the same made-up logits, so that errors do
    not add up."""
    previous = np.random.default_rng(1).standard_normal((n, 512)).astype(np.float32) * 5
    logits = []
    for length in lengths:
        session.prefill(list(range(2, 2 + length)))
        logits += [session.denoise(range(100, 100 + n)), session.denoise(range(300, 300 + n), previous)]
    return logits


def _with_layers(model: str, cards: Any, whose: Any, lengths: tuple[int, ...]) -> dict[str, Any]:
    from dgemma import Engine, StepEvent

    with Engine(model, n_ctx=600, n_threads=1, main_gpu=0, card_layers=whose) as engine:
        planned, session, n = engine.memory, engine.session(), engine.info.canvas_length
        logits = pass_logits(session, n, lengths)
        session.truncate(0)
        steps, counts = [], []
        before = (cards.graphs(0), cards.repeated(0))
        for event in session.generate(PROMPT, max_new_tokens=16, seed=3, config=_config()):
            if isinstance(event, StepEvent):
                now = (cards.graphs(0), cards.repeated(0))
                steps.append(_step(event))
                counts.append((event.step, now[0] - before[0], now[1] - before[1]))
            before = (cards.graphs(0), cards.repeated(0))
        whole = session.denoise(range(100, 100 + n))
        session.time_parts()
        by_part = session.denoise(range(100, 100 + n))
        parts = sorted(session.take_parts())
        found = {"logits": logits, "steps": steps, "counts": counts, "parts": parts, "by_part": by_part, "whole": whole}
        found |= {"planned": planned, "taken": engine.memory}
        return {**found, "whose": engine.card_layers, "n_layer": engine.info.n_layer}


def layers_note(model: str, **placement: Any) -> tuple[str, list[str]]:
    """Whose kernels compute the layers, and what is said of it, where ours were asked for."""
    import warnings

    from dgemma import Engine

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Engine(model, n_ctx=256, n_threads=1, card_layers="own", **placement) as engine:
            return engine.card_layers, [str(warning.message) for warning in said]


def _callers_canvases(engine: Any) -> list[np.ndarray]:
    """The logits of canvases that no sampler made: at first, conditioned, and after going back."""
    n, session = engine.info.canvas_length, engine.session()
    session.prefill(list(range(2, 60)))
    first = session.denoise(range(100, 100 + n))
    second = session.denoise(range(300, 300 + n), first / np.float32(0.7))
    session.truncate(41)
    return [first, second, session.denoise(range(100, 100 + n))]


def expert_times(**layer: Any) -> dict[str, Any]:
    """What ``gpu_check.py`` measures, once."""
    from dgemma._core import time_experts

    return time_experts(**layer, n_runs=1)


def dense_times(**products: Any) -> dict[str, Any]:
    """What ``gpu_check.py`` measures, once."""
    from dgemma._core import time_dense

    return time_dense(**products, n_runs=1)


def notes_on_a_card(models: list[str], library: str) -> list[tuple[str, list[str]]]:
    """``layers_note`` of each, where one stand-in card holds all of it."""
    from engine.standin_worker import RESERVE, ROOM, Cards

    Cards(library, [RESERVE + ROOM])
    return [layers_note(model, main_gpu=0) for model in models]


def passes_of(model: str, library: str, batches: tuple[int, ...]) -> list[np.ndarray]:
    """The logits of a canvas after 530 tokens that our layers encoded in passes of at most so many each."""
    from engine.standin_worker import RESERVE, ROOM, Cards

    from dgemma import Engine

    cards, found = Cards(library, [RESERVE + ROOM]), []
    for n_batch in batches:
        with Engine(model, n_ctx=600, n_threads=1, main_gpu=0, card_layers="own", n_batch=n_batch) as engine:
            assert engine.card_layers == "own"
            session = engine.session()
            session.prefill(list(range(2, 502)) + list(range(2, 32)))
            found.append(session.denoise(range(100, 100 + engine.info.canvas_length)))
    assert cards.graphs(0) > 0
    return found
