"""``compare``: the reference first, its distributions kept on disk; then the candidates, one after the other."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine import Engine, Session
from ..errors import RequestError
from ..events import GenerationConfig
from ..passages import Passage, load_passages
from .damage import answers_row, candidate_damage, level_row
from .divergence import divergence
from .headers import Header, check_alike, read_header
from .model_run import Answer, answer, noise_ladder, walk
from .report import Candidate, Comparison, ModelSummary
from .store import Store

Progress = Callable[[int, int, str], None]  # parts done, parts in all, the file at work

LEVELS = (1.0, 0.75, 0.5, 0.25, 0.1)


def compare(
    reference: str | os.PathLike[str],
    candidates: Sequence[str | os.PathLike[str]],
    passages: Sequence[Passage] | None = None,
    *,
    levels: Sequence[float] = LEVELS,
    runs: int = 1,
    max_new_tokens: int | None = None,
    seed: int = 0,
    n_gpu_layers: int = -1,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Measures what each candidate loses against ``reference``; all are GGUF files of one vocabulary and canvas.

    passages: where to measure; None = the prompts that dgemma brings along (see ``dgemma.passages``). Where a passage
    has no canvas, the reference's own answer is the clean one. levels: shares of the canvas that are noise, 0 to 1.
    runs: whole answers for each passage, with seeds from ``seed`` on; 0 = none. max_new_tokens: of an answer; None =
    one canvas. The sampler's numbers are the reference's for every model.

    One model is open at a time. What the reference says lies in a temporary folder meanwhile (TMPDIR says where): 4·C·V
    bytes for each passage and level, 268 MB at the real size.

    Raises ``RequestError`` for arguments out of range and for models that cannot be compared, ``FileError`` for a file
    that cannot be used or a disk that is too small; and what ``Engine`` raises.
    """
    shares = _checked_levels(levels)
    _check_counts(candidates, runs, max_new_tokens, seed)
    headers = [read_header(path) for path in (reference, *candidates)]
    first = headers[0]
    for header in headers[1:]:
        check_alike(first, header)
    chosen = load_passages(reference) if passages is None else list(passages)
    _check_passages(chosen, first.canvas_length)
    plan = _Plan(shares, first.config, max_new_tokens or first.canvas_length, seed, runs)
    # An answer takes whole canvases, the last one included.
    answer_room = math.ceil(plan.max_new_tokens / first.canvas_length) * first.canvas_length
    n_ctx = max(len(passage.prefix) for passage in chosen) + answer_room
    n_bytes = len(chosen) * len(shares) * first.canvas_length * len(first.tokens) * 4
    tick = _ticker(progress, len(headers) * len(chosen) * (len(shares) + runs))

    def opened(header: Header) -> Engine:
        return Engine(header.path, n_ctx=n_ctx, n_gpu_layers=n_gpu_layers, n_threads=n_threads)

    with tempfile.TemporaryDirectory(prefix="dgemma-compare-") as folder:
        store = Store(Path(folder), n_bytes)
        with opened(first) as engine:
            summary = first.summary(engine.info.file_type)
            trials = _reference_trials(engine, first.path, chosen, plan, store, tick(first.path))
        measured = []
        for header in headers[1:]:
            with opened(header) as engine:
                model = header.summary(engine.info.file_type)
                measured.append(_candidate(engine, model, trials, plan, store, tick(header.path)))
    return Comparison(summary, tuple(measured), len(chosen), first.canvas_length, runs, seed)


@dataclass(frozen=True)
class _Plan:
    """What is done with every passage."""

    levels: tuple[float, ...]  # from the noisiest down: the order in which a run passes them
    config: GenerationConfig
    max_new_tokens: int
    seed: int  # of the noise, and of the first answer
    runs: int

    @property
    def temperatures(self) -> list[float]:
        """The schedule's, taking the share of noise for the share of steps to come."""
        return [self.config.t_min + (self.config.t_max - self.config.t_min) * level for level in self.levels]

    def answers(self, session: Session, prefix: Sequence[int], tick: Callable[[], None]) -> list[Answer]:
        """One for each seed."""
        found = []
        for seed in range(self.seed, self.seed + self.runs):
            found.append(answer(session, prefix, self.max_new_tokens, seed, self.config))
            tick()
        return found


@dataclass(frozen=True)
class _Trial:
    """One passage as every model gets it, and what the reference answered."""

    prefix: tuple[int, ...]
    canvases: list[NDArray[np.int32]]
    answers: list[Answer]


def _reference_trials(
    engine: Engine, path: str, passages: Sequence[Passage], plan: _Plan, store: Store, tick: Callable[[], None]
) -> list[_Trial]:
    """The reference's side of every passage; its distributions go to ``store``."""
    session, info = engine.session(), engine.info
    trials = []
    for index, passage in enumerate(passages):
        answers = plan.answers(session, passage.prefix, tick)
        clean: Sequence[int] | NDArray[np.int32] | None = passage.canvas
        if clean is None:
            # A comparison without answers still needs one to put noise on.
            first = answers or [answer(session, passage.prefix, info.canvas_length, plan.seed, plan.config)]
            clean = first[0].draft
        canvases = noise_ladder(clean, plan.levels, info.n_vocab, np.random.default_rng([plan.seed, index]))
        for level, z in enumerate(walk(session, passage.prefix, canvases, plan.temperatures, path)):
            store.put(index, level, z)
            tick()
        trials.append(_Trial(passage.prefix, canvases, answers))
    return trials


def _candidate(
    engine: Engine,
    model: ModelSummary,
    trials: Sequence[_Trial],
    plan: _Plan,
    store: Store,
    tick: Callable[[], None],
) -> Candidate:
    """One candidate beside what the reference left."""
    session = engine.session()
    level_rows, answer_rows = [], []
    for index, trial in enumerate(trials):
        pairs = list(zip(trial.answers, plan.answers(session, trial.prefix, tick), strict=True))
        if pairs:
            answer_rows.append(answers_row(pairs, plan.config.max_denoising_steps))
        rows = []
        for level, z in enumerate(walk(session, trial.prefix, trial.canvases, plan.temperatures, model.path)):
            rows.append(level_row(divergence(store.get(index, level), z)))
            tick()
        level_rows.append(rows)
    return candidate_damage(model, plan.levels, plan.temperatures, level_rows, answer_rows)


def _ticker(progress: Progress | None, total: int) -> Callable[[str], Callable[[], None]]:
    """For each file, what to call after every part of its work."""
    done = itertools.count(1)

    def at(path: str) -> Callable[[], None]:
        def tick() -> None:
            if progress is not None:
                progress(next(done), total, path)

        return tick

    return at


def _checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Each once, from the noisiest down."""
    for level in levels:
        if not 0 <= level <= 1:
            raise RequestError(f"a noise level is a share of the canvas between 0 and 1, not {level}")
    if not levels:
        raise RequestError("give at least one noise level")
    return tuple(sorted({float(level) for level in levels}, reverse=True))


def _check_counts(candidates: Sequence[object], runs: int, max_new_tokens: int | None, seed: int) -> None:
    if not candidates or isinstance(candidates, str):
        raise RequestError("candidates must be a list of at least one file")
    if runs < 0:
        raise RequestError(f"runs must be at least 0, not {runs}")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise RequestError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if not 0 <= seed < 2**64 - runs:
        raise RequestError(f"seed must be between 0 and 2**64 - 1 - runs, not {seed}")


def _check_passages(passages: Sequence[Passage], canvas_length: int) -> None:
    if not passages:
        raise RequestError("give at least one passage")
    for passage in passages:
        if not passage.prefix:
            raise RequestError("a passage needs a prefix of at least one token")
        if passage.canvas is not None and len(passage.canvas) != canvas_length:
            raise RequestError(
                f"a passage has {len(passage.canvas)} tokens on its canvas, the models have {canvas_length}"
            )
