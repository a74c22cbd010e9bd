"""Amounts of memory as people write them."""

from __future__ import annotations

import re

import typer

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def byte_count(text: str) -> int:
    """2GB, 500M, 4GiB or plain bytes."""
    count = _parsed(text)
    if count is None or count < 1:
        raise typer.BadParameter(f"{text!r} is no size: write it like 2GB or 500M")
    return count


def memory_size(text: str) -> int:
    """18GB, 24GiB, 500MB; a unit is asked for, since a plain 18 would be 18 bytes. 0 needs none."""
    count = _parsed(text)
    if count is None or (count > 0 and not text.strip()[-1].isalpha()):
        raise typer.BadParameter(f"{text!r} is no size: write it with a unit, like 18GB (10^9) or 24GiB (2^30)")
    return count


def _parsed(text: str) -> int | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    return int(float(match[1]) * _UNITS[match[2] or ""]) if match else None
