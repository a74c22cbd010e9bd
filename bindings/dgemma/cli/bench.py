"""``dgemma bench``: how long loading, encoding and a denoising step take; the last line of stdout is JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..engine import Engine


def bench(
    model: Annotated[str, typer.Option("-m", "--model", metavar="FILE", help="The GGUF file.")],
    prompt_tokens: Annotated[
        int, typer.Option("-p", "--prompt-tokens", min=1, metavar="N", help="Encode a random prompt of N tokens.")
    ] = 256,
    steps: Annotated[
        int, typer.Option("--steps", min=1, metavar="N", help="Denoising steps a canvas; never fewer.")
    ] = 4,
    repeats: Annotated[int, typer.Option("-r", "--repeats", min=1, metavar="N", help="Runs after one warm-up.")] = 3,
    gpu_layers: Annotated[
        int, typer.Option("-ngl", "--n-gpu-layers", min=-1, metavar="N", help="Layers on the GPU; -1: all.")
    ] = -1,
    threads: Annotated[
        int | None, typer.Option("-t", "--threads", min=1, metavar="N", help="CPU threads; as many as cores if absent.")
    ] = None,
    context: Annotated[
        int | None, typer.Option("-c", "--ctx-size", min=1, metavar="N", help="Room for N tokens; 8192 if absent.")
    ] = None,
) -> None:
    """Time a model: load, encode (tokens a second), denoise (ms a step).

    Every canvas takes the same number of steps, so that random weights measure too. Medians, with least and most.
    """
    import dgemma

    start = time.perf_counter()
    engine = dgemma.Engine(model, n_ctx=context, n_gpu_layers=gpu_layers, n_threads=threads)
    load_seconds = time.perf_counter() - start
    runs = [_measure(engine, prompt_tokens, steps, seed) for seed in range(repeats + 1)][1:]
    report: dict[str, Any] = {
        "model": os.path.basename(model),
        "file_type": engine.info.file_type,
        "n_params": engine.info.n_params,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": threads,
        "prompt_tokens": prompt_tokens,
        "steps": steps,
        "load_seconds": round(load_seconds, 4),
        "encode_tokens_per_second": _spread([prompt_tokens / run["encode"] for run in runs]),
        "first_step_ms": _spread([1000 * run["steps"][0] for run in runs]),
        "memory": engine.memory,
    }
    if steps > 1:
        report["conditioned_step_ms"] = _spread([1000 * s for run in runs for s in run["steps"][1:]])
    _show(report)
    typer.echo(json.dumps(report))


def _measure(engine: Engine, prompt_tokens: int, steps: int, seed: int) -> dict[str, Any]:
    """Seconds of one prompt's encoding, and of each step of one canvas after it."""
    import numpy as np

    from ..events import GenerationConfig, StepEvent

    prompt = np.random.default_rng(seed).integers(0, engine.info.n_vocab, prompt_tokens)
    session = engine.session()
    start = time.perf_counter()
    session.prefill(prompt.tolist())
    encode = time.perf_counter() - start
    # A confidence threshold of 0 is never met, so the canvas takes every step.
    config = GenerationConfig(max_denoising_steps=steps, confidence_threshold=0.0)
    times, start = [], time.perf_counter()
    for event in session.generate(max_new_tokens=1, seed=seed, config=config):
        now = time.perf_counter()
        if isinstance(event, StepEvent):
            times.append(now - start)
        start = now
    return {"encode": encode, "steps": times}


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def _show(report: dict[str, Any]) -> None:
    typer.echo(f"{report['model']} ({report['file_type']}), {report['machine']}")
    typer.echo(f"  load               {report['load_seconds']:10.2f} s")
    rows = (("encode", "encode_tokens_per_second", "tokens/s"), ("first step", "first_step_ms", "ms"))
    for label, key, unit in (*rows, ("conditioned step", "conditioned_step_ms", "ms")):
        if key in report:
            spread = report[key]
            typer.echo(f"  {label:18} {spread['median']:10.1f} {unit}  ({spread['least']:.1f} to {spread['most']:.1f})")
