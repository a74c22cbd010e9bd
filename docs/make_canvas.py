#!/usr/bin/env python3
"""Makes docs/canvas.svg, the README's picture of the live canvas: one step of a real run, drawn as a terminal shows it.

    python examples/random_checkpoint.py build/canvas --canvas 96 --logit-spread 4 \\
        --vocab 262144 --vocab-from VOCAB.gguf
    dgemma convert build/canvas -o build/canvas.gguf --type bf16
    python docs/make_canvas.py build/canvas.gguf

VOCAB.gguf is Gemma 4's vocabulary, ggml-vocab-gemma-4.gguf in the sources of llama.cpp. The weights are random, so the
words mean nothing. Any other model file will do as well; the engine, the sampler and the drawing are the real ones.
"""

from __future__ import annotations

import argparse
import io
import itertools
import re
import time
from pathlib import Path

from rich.cells import split_graphemes
from rich.console import Console
from rich.segment import Segment, Segments

import dgemma
from dgemma.visual.cells import canvas_cells, readable_tokens
from dgemma.visual.frame import draw_frame
from dgemma.visual.status import Progress

COLUMNS, ROWS = 92, 24
# With random weights the released temperatures leave nearly everything undecided to the end; these are lower, and the
# bound higher, so that one picture shows all that there is to see.
CONFIG = dgemma.GenerationConfig(t_min=0.05, t_max=0.5, entropy_bound=2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make docs/canvas.svg.")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--step", type=int, default=34, help="which step to draw (default: 34)")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--prompt", default="Why is the sky blue?")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("canvas.svg"))
    options = parser.parse_args()
    lines = picture(options.model, options.prompt, options.seed, options.step)
    options.output.write_text(svg(lines), encoding="utf-8")


def picture(model: str, prompt: str, seed: int, step: int) -> list[list[Segment]]:
    tokenizer = dgemma.Tokenizer.from_gguf(model)
    with dgemma.Engine(model) as engine:
        begun = time.monotonic()
        events = engine.generate(tokenizer.encode(prompt), max_new_tokens=1, seed=seed, config=CONFIG)
        steps = [event for event in itertools.islice(events, step) if isinstance(event, dgemma.StepEvent)]
        seconds = time.monotonic() - begun
    before, event = steps[-2:]
    cells = canvas_cells(event, tokenizer, before)
    progress = Progress(
        block=event.block,
        step=event.step,
        max_steps=CONFIG.max_denoising_steps,
        temperature=event.temperature,
        entropy=float(event.entropy.mean()),
        accepted=float(event.accepted.mean()),
        tokens_per_second=readable_tokens(cells) / seconds,
        steps_per_second=len(steps) / seconds,
    )
    return draw_frame(cells, progress, COLUMNS, ROWS, past=f"> {prompt}")


def svg(lines: list[list[Segment]]) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(Segments(piece for segment in line for piece in placed(segment)), soft_wrap=True)
        console.line()
    drawn = console.export_svg(title="dgemma run --diffusion-visual", unique_id="canvas")
    # rich's template loads a font from the network, which pictures in a README may not do.
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.S).replace("Fira Code", "DejaVu Sans Mono")


def placed(segment: Segment) -> list[Segment]:
    """Characters outside ASCII each by itself: a picture's reader has other fonts, and they should end at one place."""
    if segment.text.isascii() or "\u2067" in segment.text:
        return [segment]
    spans, _ = split_graphemes(segment.text)
    return [Segment(segment.text[start:end], segment.style) for start, end, _ in spans]


if __name__ == "__main__":
    main()
