"""What to call files in tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path


def short_names(paths: Sequence[str]) -> list[str]:
    """The files' names without the hyphened parts that all begin with: "Q4_K_M" and "BF16" for one model's quants.

    The whole paths where two files would have one name.
    """
    parts = [Path(path).name.removesuffix(".gguf").split("-") for path in paths]
    heads = [part[:-1] for part in parts]  # the last part stays: a name is never empty
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*heads, strict=False)))
    names = ["-".join(part[shared:]) for part in parts]
    return names if len(set(names)) == len(set(paths)) else list(paths)
