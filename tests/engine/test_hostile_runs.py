"""Damaged files and every tensor type, each loaded in a process of its own: see test_hostile_files.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dgemma

# ggml's numbers of the types that the engine promises to multiply by.
PROMISED = {
    "F32 F16 Q4_0 Q4_1": (0, 1, 2, 3),
    "Q5_0 Q5_1 Q8_0": (6, 7, 8),
    "Q2_K … Q6_K": (10, 11, 12, 13, 14),
    "IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS IQ1_M": (16, 17, 18, 19, 20, 21, 22, 23, 29),
    "BF16 TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0": (30, 34, 35, 39, 40, 41, 42),
}


def worker(*arguments: object) -> list[str]:
    """The lines that the worker printed; it must have come to its end."""
    here = Path(__file__).parent
    package = Path(dgemma.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, here / "hostile_worker.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    return done.stdout.splitlines()


def test_mutations_load_or_are_refused(tiny: Path, tmp_path: Path) -> None:
    lines = worker("fuzz", tiny, tmp_path, 1, 400)
    assert len(lines) == 400
    assert 20 < sum(line.endswith(": ok") for line in lines) < 380  # neither harmless all nor fatal all


def test_mutations_that_load_also_run(tiny: Path, tmp_path: Path) -> None:
    assert len(worker("fuzz", tiny, tmp_path, 2, 200, "run")) == 200


def test_every_type_works_or_is_refused_by_name(model_path: Callable[..., Path], tmp_path: Path) -> None:
    outcomes = dict(line.split(": ", 1) for line in worker("types", model_path("hidden256"), tmp_path))
    promised = {str(type) for types in PROMISED.values() for type in types}
    assert {type for type, outcome in outcomes.items() if outcome == "ok"} == promised
    for type in outcomes.keys() - promised:
        assert "which ggml cannot multiply by" in outcomes[type] or "the GGUF header cannot be read" in outcomes[type]
