#!/usr/bin/env python3
"""How long a denoising step should take on a card, part by part, from what it reads, multiplies and launches.

python examples/predict_step.py                         # Q4_K_M of the 26B model's shapes, a prefix of 1024 tokens
python examples/predict_step.py --card "RTX 4090" -p 8192
python examples/predict_step.py --model model.gguf      # of a file's own shapes and types; its header is enough
python examples/predict_step.py --write docs/cuda.md    # the table there

Milliseconds are the floor and what is expected; dgemma.bench.prediction says what both are made of. The last line is
JSON. ``--write`` prints nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgemma._native import core
from dgemma.bench.own_products import has_products
from dgemma.bench.prediction import CARDS, Card, Part, predict_step
from dgemma.bench.work import Work
from released import hollow_gguf

BEGIN, END = "<!-- step: examples/predict_step.py --write docs/cuda.md -->\n", "<!-- end of step -->"
ROWS = {  # part -> what it is called
    "attention": "attention, with its projections",
    "dense_ffn": "dense feed-forward",
    "router": "router",
    "experts": "experts",
    "embedding": "embedding, with self-conditioning's feed-forward",
    "head": "LM head",
    "sampler": "sampler",
    "self_conditioning": "self-conditioning, sharp rows",
}
LAYERS = {"ggml": "by ggml", "own": "ours"}  # whose layers
ALIKE = ("sampler", "self_conditioning")  # with either

Prediction = Mapping[str, Part]
Predictions = Mapping[str, Mapping[str, Prediction]]  # by whose layers and card


def predictions(model: Path, n_past: int, cards: list[Card]) -> Predictions:
    info = core.read_gguf(str(model))
    return {
        whose: {card.name: predict_step(info, n_past, card, own_layers=whose == "own") for card in cards}
        for whose in LAYERS
        if whose == "ggml" or has_products(info)
    }


def milliseconds(*parts: Part) -> str:
    floor, expected = 1000 * sum(part.floor for part in parts), 1000 * sum(part.expected for part in parts)
    digits = 1 if expected >= 1 else 2
    return f"{floor:.{digits}f} · {expected:.{digits}f}"


def line(label: str, by_card: list[list[Part]], strong: str = "") -> str:
    """Of some parts' sum; their work and launches are every card's."""
    first = by_card[0]
    work = sum((part.work for part in first), Work())
    launches = sum(part.passing.launches for part in first)
    times = " | ".join(f"{strong}{milliseconds(*parts)}{strong}" for parts in by_card)
    label = f"{strong}{label}{strong}"
    return f"| {label} | {work.bytes / 1e6:.0f} | {work.operations / 1e9:.0f} | {launches} | {times} |"


def table(found: Predictions) -> str:
    cards = list(found["ggml"])
    lines = [f"| part | MB | Gop | launches | {' | '.join(cards)} |", "|---|" + "---:|" * (3 + len(cards))]
    for name, label in ROWS.items():
        for whose in found if name not in ALIKE else ("ggml",):
            parts = [[found[whose][card][name]] for card in cards]
            lines.append(line(label if name in ALIKE else f"{label}, {LAYERS[whose]}", parts))
    for whose, by in ((whose, LAYERS[whose]) for whose in found):
        steps = [list(found[whose][card].values()) for card in cards]
        lines.append(line(f"a step, the layers {by}", steps, "**"))
    return "\n".join(lines) + "\n"


def as_json(found: Predictions, n_past: int) -> dict[str, Any]:
    def parts(prediction: Prediction) -> dict[str, Any]:
        return {
            name: {
                "floor_ms": round(1000 * part.floor, 3),
                "expected_ms": round(1000 * part.expected, 3),
                "bound": part.bound,
                "mb": round(part.bytes / 1e6, 1),
                "gop": round(part.work.operations / 1e9, 1),
                "launches": part.passing.launches,
            }
            for name, part in prediction.items()
        }

    layers = {whose: {card: parts(one) for card, one in by_card.items()} for whose, by_card in found.items()}
    return {"n_past": n_past, "layers_by": layers}


def page(text: str, table: str) -> str:
    """A page with the table between its marks."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"the page has no place for the table: {BEGIN.strip()} … {END}")
    return before + mark + table + end + after


def released_table(cards: list[Card], n_past: int = 1024) -> str:
    """Of Q4_K_M at the 26B model's shapes, for which no weights are needed."""
    with tempfile.TemporaryDirectory() as folder:
        return table(predictions(hollow_gguf(Path(folder, "q4_k_m.gguf"), "Q4_K_M"), n_past, cards))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", action="append", choices=list(CARDS), help="one of them; all if absent")
    parser.add_argument("--model", type=Path, metavar="FILE", help="a GGUF file in place of the 26B model's shapes")
    parser.add_argument("-p", "--prefix", type=int, default=1024, metavar="N", help="tokens before the canvas")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table of all cards into a page")
    args = parser.parse_args()
    if args.write:
        args.write.write_text(page(args.write.read_text(), released_table(list(CARDS.values()))))
        return
    cards = [CARDS[name] for name in args.card or CARDS]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or hollow_gguf(Path(folder, "q4_k_m.gguf"), "Q4_K_M")
        found = predictions(model, args.prefix, cards)
    print(table(found))
    print(json.dumps(as_json(found, args.prefix)))


if __name__ == "__main__":
    main()
