"""``python -m dgemma.visual``: the live canvas over scripted events, with no model. Ctrl-C ends it."""

from __future__ import annotations

import argparse
import time

from rich.console import Console

from . import CanvasView
from .demo import TEXT, scripted_events, toy_ids, toy_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dgemma.visual", description="The live canvas, with no model.")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds a step is made to take (default: 0.1)")
    parser.add_argument("--canvas", type=int, default=128, help="positions of a canvas (default: 128)")
    parser.add_argument("--steps", type=int, default=48, help="steps of a canvas at most (default: 48)")
    parser.add_argument("--repeat", type=int, default=1, help="how many times the text is answered (default: 1)")
    options = parser.parse_args()

    tokenizer = toy_tokenizer()
    events = scripted_events(tokenizer, toy_ids(tokenizer, TEXT * options.repeat), options.canvas, options.steps)
    console = Console()
    question = "> Why is the sky blue?"
    console.print(question, style="bold")
    try:
        with CanvasView(console, tokenizer, max_steps=options.steps, heading=question) as view:
            for event in events:
                view.show(event)
                time.sleep(options.delay)
    except KeyboardInterrupt:
        console.print("\ninterrupted")


if __name__ == "__main__":
    main()
