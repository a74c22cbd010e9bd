"""How the cost of a step and of encoding grows, drawn: ``python examples/bench_growth.py --out docs``.

    prefix     a step after 0 to 32 K tokens: only full layers may grow
    layers     a step against the number of layers
    canvas     a step against the canvas's length
    encode     encoding a prompt against its length

The models are small and random; what is measured is the shape of the curves. Medians of a few runs: the machine may be
busy. ``--model FILE`` takes prefix and encode of a file of yours in their place, up to ``--longest`` tokens; on a file
of the real widths that is minutes, and the last line says how many.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from dgemma import Engine, Session, StepEvent
from dgemma.bench import ROWS
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint

SMALL = CheckpointConfig(context=33_280)
PREFIXES = (256, 1024, 4096, 8192, 16_384, 32_768)
FILE_PREFIXES = (1, *PREFIXES)  # a step needs a prompt, so that 1 stands for none
LAYERS = (6, 12, 18, 24)
CANVASES = (64, 128, 256, 512)
REPEATS = 5

Curve = list[tuple[int, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder for growth.png (build if absent)")
    parser.add_argument("--threads", type=int, default=None, help="as many as cores if absent")
    parser.add_argument("--model", type=Path, default=None, help="a GGUF file to measure in place of small models")
    parser.add_argument("--longest", type=int, default=8192, help="of the prefixes with --model (8192 if absent)")
    arguments = parser.parse_args()
    if arguments.longest < 1:
        parser.error("--longest must be at least 1")
    start = time.perf_counter()
    if arguments.model is None:
        with tempfile.TemporaryDirectory() as folder:
            curves = measure(Path(folder), arguments.threads)
    else:
        curves = measure_file(arguments.model, arguments.longest, arguments.threads)
    minutes = (time.perf_counter() - start) / 60
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(curves, arguments.out / "growth.png")
    print(json.dumps(curves | {"minutes": round(minutes, 2)}))


def measure(folder: Path, threads: int | None) -> dict[str, Curve]:
    """Milliseconds by curve and size."""

    def session_for(config: CheckpointConfig, n_ctx: int) -> tuple[Session, Engine]:
        name = f"{config.layers}-{config.canvas}"
        path = folder / f"{name}.gguf"
        if not path.exists():
            convert(write_checkpoint(folder / name, config), path, type="bf16")
        engine = Engine(path, n_ctx=n_ctx, n_threads=threads)
        return engine.session(), engine

    session, engine = session_for(SMALL, SMALL.context)
    prefix, encode = growth_of(session, engine, PREFIXES)

    def curve(sizes: tuple[int, ...], config: Callable[[int], CheckpointConfig]) -> Curve:
        points = []
        for size in sizes:
            session, engine = session_for(config(size), 2048)
            session.prefill(tokens(engine, 512))
            points.append((size, step_ms(session, engine)))
        return points

    return {
        "prefix": prefix,
        "encode": encode,
        "layers": curve(LAYERS, lambda n: replace(SMALL, layers=n)),
        "canvas": curve(CANVASES, lambda n: replace(SMALL, canvas=n)),
    }


def measure_file(path: Path, longest: int, threads: int | None) -> dict[str, Curve]:
    """The curves of one file, as far as its prefixes go."""
    prefixes = tuple(n for n in FILE_PREFIXES if n <= longest)
    engine = Engine(path, n_ctx=prefixes[-1] + Engine(path).info.canvas_length, n_threads=threads)
    prefix, encode = growth_of(engine.session(), engine, prefixes)
    return {"prefix": prefix, "encode": encode}


def growth_of(session: Session, engine: Engine, prefixes: tuple[int, ...]) -> tuple[Curve, Curve]:
    """Milliseconds of a step after each prefix, and of encoding it."""
    prefix: Curve = []
    encode: Curve = []
    encode_ms = 0.0  # each longer prompt goes on from the shorter one: nothing is encoded twice
    for n in prefixes:
        start = time.perf_counter()
        session.prefill(tokens(engine, n - session.n_past))
        encode_ms += 1000 * (time.perf_counter() - start)
        encode.append((n, encode_ms))
        prefix.append((n, step_ms(session, engine)))
    return prefix, encode


def tokens(engine: Engine, n: int) -> list[int]:
    return np.random.default_rng(n).integers(0, engine.info.n_vocab, n).tolist()


def step_ms(session: Session, engine: Engine) -> float:
    """The median of a few conditioned steps with sharp rows, as ``dgemma bench`` has them."""
    config = replace(
        engine.config,
        max_denoising_steps=REPEATS + 1,
        confidence_threshold=0.0,
        t_min=ROWS["sharp"],
        t_max=ROWS["sharp"],
    )
    ends = []
    for event in session.generate(max_new_tokens=1, seed=1, config=config):
        if isinstance(event, StepEvent):
            ends.append(time.perf_counter())
    return 1000 * statistics.median(np.diff(ends))


def draw(curves: dict[str, Curve], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = len(curves) // 2
    figure, panels = plt.subplots(rows, 2, figsize=(9, 3.25 * rows), layout="constrained")
    labels = {
        "prefix": ("tokens before the canvas", "a step, ms"),
        "encode": ("tokens of the prompt", "encoding it, ms"),
        "layers": ("layers", "a step, ms"),
        "canvas": ("tokens of the canvas", "a step, ms"),
    }
    for panel, (name, points) in zip(panels.flat, curves.items(), strict=True):
        panel.plot(*zip(*points, strict=True), marker="o")
        panel.set(xlabel=labels[name][0], ylabel=labels[name][1], xlim=(0, None), ylim=(0, None))
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
