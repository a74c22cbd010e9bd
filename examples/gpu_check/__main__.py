"""Proves dgemma on a machine with an NVIDIA GPU, and times it there; ``make gpu-check`` runs this.

    PYTHONPATH=examples python -m gpu_check FOLDER [--only NAME …] [--within SECONDS] [--keep]

Each section runs in a process of its own. FOLDER/gpu-check.json and gpu-check.md are written after each section, and
log.txt holds what the sections said. One that fails is a sentence in the report, and the exit status is 1 at the end.
The file of full size, 16.8 GB, is written into build/ and removed. Needs no network. More: docs/gpu-check.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from .card import device
from .report import SECTIONS, make_report, markdown, problems
from .whole import MODEL


def main(arguments: Sequence[str] | None = None) -> None:
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(
        prog="python -m gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help=f"of {', '.join(names)}; again for more"
    )
    parser.add_argument(
        "--within", type=float, default=math.inf, metavar="SECONDS", help="for all sections; unlimited if absent"
    )
    parser.add_argument("--keep", action="store_true", help="keep the file of full size")
    parser.add_argument("--section", choices=names, help=argparse.SUPPRESS)  # one section, here; its JSON on stdout
    args = parser.parse_args(arguments)
    if args.section:
        section = next(section for section in SECTIONS if section.name == args.section)
        print(json.dumps(section.measure(args.folder)))
        return
    card = device()
    from dgemma._core import cuda_unavailable

    if why := cuda_unavailable():
        raise SystemExit(f"gpu-check: {why}")
    args.folder = args.folder.resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "log.txt").unlink(missing_ok=True)
    chosen = [section for section in SECTIONS if not args.only or section.name in args.only]
    report = make_report(args.folder, card, chosen, within=args.within)
    if not args.keep:
        MODEL.unlink(missing_ok=True)
    print(markdown(report, chosen))
    if wrong := problems(report):
        sys.exit(f"gpu-check: {len(wrong)} of {len(chosen)} sections failed: {wrong[0]}")


if __name__ == "__main__":
    main()
