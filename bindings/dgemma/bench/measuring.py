"""The measuring itself: one engine, each phase a few times, then once more by part."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import machine
from .card import device_limits, layers_device
from .work import step_work

if TYPE_CHECKING:
    from ..engine import Engine, Session
    from ..events import DoneEvent, GenerationConfig

# Temperatures that make a model's softmax sharp or flat without touching it; random weights are flat at 0.8 already.
ROWS = {"sharp": 1e-3, "mixed": 0.1, "flat": 0.8}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured. Every canvas takes ``steps`` steps, so that random weights measure too."""

    prompt_tokens: tuple[int, ...] = (256,)
    steps: int = 4
    blocks: int = 1
    repeats: int = 3
    threads: int | None = None
    devices: Mapping[str, Any] = field(default_factory=dict)  # arguments of Engine: which weights go where
    n_ctx: int | None = None
    n_batch: int | None = None
    cold: bool = False
    exact: bool = False  # the engine's slow, obvious path


def measure(path: str | os.PathLike[str], plan: Plan, progress: Progress = lambda phase: None) -> dict[str, Any]:
    """A report that ``json.dumps`` takes. Times are of this process's wall clock; each spread has median, least, most.

    Raises what ``Engine`` raises, ``ContextError`` where a prompt does not fit, and ``RequestError`` where ``cold`` is
    asked for and the system cannot forget a file.
    """
    cold = {} if not plan.cold else {"cold": _cold(path, plan, progress)}
    before = machine.own_bytes()
    progress("load")
    start = time.perf_counter()
    engine = _engine(path, plan)
    load_seconds = time.perf_counter() - start
    session = engine.session()
    report = _heading(engine, path, plan) | {"load_seconds": round(load_seconds, 4)} | cold
    report["encode_tokens_per_second"] = {}
    for n in plan.prompt_tokens:
        progress(f"encode {n}")
        report["encode_tokens_per_second"][str(n)] = _encode(session, _tokens(engine, n), plan.repeats)
    prompt = _tokens(engine, plan.prompt_tokens[0])
    progress("commit")
    report["commit_ms"] = _commit(session, prompt, _tokens(engine, engine.info.canvas_length), plan.repeats)
    report["step_ms"], report["entropy"] = {}, {}
    for rows, temperature in ROWS.items():
        progress(f"{rows} steps")
        _steps(session, prompt, _config(engine, plan, temperature), plan.repeats, rows, report)
    progress("answer")
    report["answer"] = _answer(session, prompt, plan, engine)
    report["memory"] = engine.memory
    report["planned_bytes"] = sum(sum(uses.values()) - uses.get("weights", 0) for uses in engine.memory.values())
    report["peak_resident_bytes"] = machine.peak_resident_bytes()
    own = machine.own_bytes()
    report["own_bytes"] = own - before if own is not None and before is not None else None
    progress("limits")
    card = layers_device(engine.memory)
    report["limits_of"] = card or "CPU"
    report["limits"] = machine.limits(report["threads"]) if card is None else device_limits(card)
    report["int8_kernel"] = machine.int8_kernel()
    progress("parts")
    report["parts"] = {
        rows: _parts(engine, session, path, prompt, _config(engine, plan, ROWS[rows]), report["limits"])
        for rows in (ROWS if plan.steps > 1 else ())
    }
    return report


def _engine(path: str | os.PathLike[str], plan: Plan) -> Engine:
    from ..engine import Engine

    options: dict[str, Any] = {"n_ctx": plan.n_ctx, "n_threads": plan.threads, "n_batch": plan.n_batch}
    return Engine(path, exact=plan.exact, **options, **plan.devices)


def _cold(path: str | os.PathLike[str], plan: Plan, progress: Progress) -> dict[str, float]:
    """What a start takes when nothing of the file is in memory, beside reading it plainly. Weights are read when they
    are first used, so that being ready takes the load and what the first answer takes longer than a later one."""
    from .._native import core

    files = core.read_gguf(os.fspath(path)).paths
    progress("read from the disk")
    machine.forget_files(files)
    read_seconds = _timed(lambda: machine.read_files(files))
    machine.forget_files(files)
    progress("load from the disk")
    start = time.perf_counter()
    engine = _engine(path, plan)
    load_seconds = time.perf_counter() - start
    session, prompt = engine.session(), _tokens(engine, plan.prompt_tokens[0])
    config = _config(engine, replace(plan, steps=2), ROWS["sharp"])

    def answer() -> None:
        session.truncate(0)
        for _ in session.generate(prompt, max_new_tokens=1, seed=1, config=config):
            pass

    first, later = _timed(answer), _timed(answer)
    ready = load_seconds + max(first - later, 0.0)
    return {
        "read_seconds": round(read_seconds, 4),
        "load_seconds": round(load_seconds, 4),
        "first_answer_seconds": round(first, 4),
        "later_answer_seconds": round(later, 4),
        "ready_seconds": round(ready, 4),
        "ready_over_read": round(ready / read_seconds, 3),
    }


def _heading(engine: Engine, path: str | os.PathLike[str], plan: Plan) -> dict[str, Any]:
    return {
        "dgemma": importlib.metadata.version("dgemma"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": os.path.basename(path),
        "file_type": engine.info.file_type,
        "n_params": engine.info.n_params,
        "file_bytes": engine.info.n_bytes,
        "machine": f"{machine.processor()}, {os.cpu_count()} cores, {platform.system()}",
        "threads": engine.n_threads,
        "prompt_tokens": list(plan.prompt_tokens),
        "exact": plan.exact,
        "card_layers": engine.card_layers,
        "steps": plan.steps,
        "blocks": plan.blocks,
        "repeats": plan.repeats,
        "n_ctx": engine.n_ctx,
        "n_batch": engine.n_batch,
    }


def _tokens(engine: Engine, n: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(n).integers(0, engine.info.n_vocab, n).tolist()
    return tokens


def _config(engine: Engine, plan: Plan, temperature: float) -> GenerationConfig:
    # A confidence threshold of 0 is never met, so a canvas takes every step.
    return replace(
        engine.config,
        max_denoising_steps=plan.steps,
        confidence_threshold=0.0,
        t_min=temperature,
        t_max=temperature,
    )


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _encode(session: Session, tokens: list[int], repeats: int) -> dict[str, float]:
    seconds = []
    for _ in range(repeats + 1):
        session.truncate(0)
        seconds.append(_timed(lambda: session.prefill(tokens)))
    return spread([len(tokens) / s for s in seconds[1:]])


def _commit(session: Session, prompt: list[int], canvas: list[int], repeats: int) -> dict[str, float]:
    """Encoding a finished canvas: what stands between two blocks."""
    seconds = []
    for _ in range(repeats + 1):
        session.truncate(0)
        session.prefill(prompt)
        seconds.append(_timed(lambda: session.prefill(canvas)))
    return spread([1000 * s for s in seconds[1:]])


def _steps(
    session: Session, prompt: list[int], config: GenerationConfig, repeats: int, rows: str, report: dict[str, Any]
) -> None:
    """Adds the time of a canvas's first step, which has nothing to condition on, and of the steps after it."""
    from ..events import StepEvent

    first: list[float] = []
    later: list[float] = []
    entropies: list[float] = []
    for seed in range(repeats + 1):
        session.truncate(0)
        session.prefill(prompt)
        start = time.perf_counter()
        for event in session.generate(max_new_tokens=1, seed=seed, config=config):
            now = time.perf_counter()
            if isinstance(event, StepEvent) and seed > 0:  # the first round is the warm-up
                (first if event.step == 1 else later).append(1000 * (now - start))
                entropies.append(float(np.mean(event.entropy)))
            start = now
    report["step_ms"].setdefault("first", spread(first))
    if later:
        report["step_ms"][rows] = spread(later)
        report["entropy"][rows] = round(statistics.mean(entropies), 4)


def _answer(session: Session, prompt: list[int], plan: Plan, engine: Engine) -> dict[str, Any]:
    """What someone who waits for an answer gets: prompt, steps and commits, all in the wall time."""
    config = replace(engine.config, max_denoising_steps=plan.steps, confidence_threshold=0.0)
    wanted = plan.blocks * engine.info.canvas_length
    session.truncate(0)
    *_, done = session.generate(prompt, max_new_tokens=wanted, seed=1, config=config)
    stats = _done(done).stats
    return {
        "tokens": stats.new_tokens,
        "blocks": stats.blocks,
        "wall_seconds": round(stats.wall_seconds, 4),
        "tokens_per_second": round(stats.new_tokens / stats.wall_seconds, 3),
    }


def _done(event: object) -> DoneEvent:
    from ..events import DoneEvent

    assert isinstance(event, DoneEvent)
    return event


def _parts(
    engine: Engine,
    session: Session,
    path: str | os.PathLike[str],
    prompt: list[int],
    config: GenerationConfig,
    limits: dict[str, float | None],
) -> dict[str, dict[str, float | None]]:
    """Milliseconds of the median conditioned step, by part, and how near each part is to the machine's limits. Apart
    from the timed steps: looking on costs some percent."""
    from .._native import core
    from ..events import StepEvent

    session.truncate(0)
    session.prefill(prompt)
    session.time_parts()
    steps = []
    for event in session.generate(max_new_tokens=1, seed=1, config=config):
        if isinstance(event, StepEvent):
            steps.append(session.take_parts())
    work = step_work(core.read_gguf(os.fspath(path)), len(prompt))
    copy = limits["copy_bytes_per_second"]
    parts: dict[str, dict[str, float | None]] = {}
    for part in sorted(steps[-1], key=lambda part: -steps[-1][part]):
        seconds = statistics.median(step[part] for step in steps[1:])
        todo = work.get(part)
        parts[part] = {
            "ms": round(1000 * seconds, 3),
            "gop": None if todo is None else round(todo.operations / 1e9, 4),
            "mb": None if todo is None else round(todo.bytes / 1e6, 3),
            "share_of_matrix_rate": None if todo is None else _share(todo.least_seconds(limits), seconds),
            "share_of_copy_rate": None if todo is None or not copy else _share(todo.bytes / copy, seconds),
        }
    return parts


def _share(least_seconds: float, seconds: float) -> float:
    return round(least_seconds / seconds, 4) if seconds > 0 else 0.0


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }
