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
from dgemma.bench.prediction import CARDS, Card, Part, predict_step
from dgemma.bench.work import Work
from released import hollow_gguf

BEGIN, END = "<!-- step: examples/predict_step.py --write docs/cuda.md -->\n", "<!-- end of step -->"
ROWS = {  # part -> what it is called, and whether our kernels for experts do it
    "attention": ("attention, with its projections", False),
    "dense_ffn": ("dense feed-forward", False),
    "router": ("router", False),
    "experts": ("experts, by ggml", False),
    "own experts": ("experts, by our kernels", True),
    "embedding": ("embedding, with self-conditioning's feed-forward", False),
    "head": ("LM head", False),
    "sampler": ("sampler", False),
    "self_conditioning": ("self-conditioning, sharp rows", False),
}

Prediction = Mapping[str, Part]


def predictions(model: Path, n_past: int, cards: list[Card]) -> dict[str, tuple[Prediction, Prediction]]:
    """By card: with ggml's kernels for experts, and with ours."""
    info = core.read_gguf(str(model))
    return {
        card.name: (predict_step(info, n_past, card), predict_step(info, n_past, card, own_experts=True))
        for card in cards
    }


def milliseconds(*parts: Part) -> str:
    floor, expected = 1000 * sum(part.floor for part in parts), 1000 * sum(part.expected for part in parts)
    digits = 1 if expected >= 1 else 2
    return f"{floor:.{digits}f} · {expected:.{digits}f}"


def table(found: Mapping[str, tuple[Prediction, Prediction]]) -> str:
    lines = [f"| part | MB | Gop | launches | {' | '.join(found)} |", "|---|" + "---:|" * (3 + len(found))]
    first = next(iter(found.values()))
    for row, (label, own) in ROWS.items():
        name = row.removeprefix("own ")
        part = first[own][name]
        numbers = f"{part.work.bytes / 1e6:.0f} | {part.work.operations / 1e9:.0f} | {part.passing.launches}"
        columns = " | ".join(milliseconds(pair[own][name]) for pair in found.values())
        lines.append(f"| {label} | {numbers} | {columns} |")
    for own, label in ((False, "a step with ggml's experts"), (True, "a step with ours")):
        work = sum((part.work for part in first[own].values()), Work())
        launches = sum(part.passing.launches for part in first[own].values())
        numbers = f"{work.bytes / 1e6:.0f} | {work.operations / 1e9:.0f} | {launches}"
        columns = " | ".join(f"**{milliseconds(*pair[own].values())}**" for pair in found.values())
        lines.append(f"| **{label}** | {numbers} | {columns} |")
    return "\n".join(lines) + "\n"


def as_json(found: Mapping[str, tuple[Prediction, Prediction]], n_past: int) -> dict[str, Any]:
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

    cards = {name: {"ggml": parts(ggml), "ours": parts(ours)} for name, (ggml, ours) in found.items()}
    return {"n_past": n_past, "experts_by": cards}


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
