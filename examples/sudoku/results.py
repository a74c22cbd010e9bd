#!/usr/bin/env python3
"""Measures the committed checkpoint on the held-out puzzles, the reference beside our engine (needs torch and
transformers), and writes what the README claims and the tests compare with:

    PYTHONPATH=examples .venv/bin/python -m sudoku.results examples/sudoku/results.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from dgemma.demo import checkpoint
from dgemma.evaluation import Evaluation, Question, load_questions
from dgemma.sudoku import parse
from sudoku.checkpoint import HELD_OUT
from sudoku.quality import evaluations
from sudoku.reference import solve

TYPES = ("f32", "Q4_K_M")


def ours(one: Evaluation, questions: Sequence[Question]) -> dict[str, Any]:
    """An evaluation without its texts, and its rate by the number of empty cells."""
    empty = [parse(question.prompt).count(0) for question in questions]
    asked = Counter(empty)
    right = Counter(count for count, attempt in zip(empty, one.attempts, strict=True) if attempt.right)
    totals = {name: value for name, value in one.to_dict().items() if name not in ("model", "attempts")}
    return {
        **totals,
        "rate_by_empty_cells": {count: right[count] / asked[count] for count in sorted(asked)},
        "steps": [attempt.steps for attempt in one.attempts],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON file to write")
    parser.add_argument("--limit", type=int, default=None, help="the first so many puzzles only")
    args = parser.parse_args()
    questions = load_questions(HELD_OUT, args.limit)
    results = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()} with {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seed": 0,
        "reference": solve(checkpoint(), questions, seed=0, threads=1),
    }
    for type, one in zip(TYPES, evaluations(TYPES, args.limit), strict=True):
        results[type] = ours(one, questions)
    args.results.write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
