#!/usr/bin/env python3
"""Compiles the CUDA kernels, on any machine with nvcc, and writes what each takes of a card into docs/cuda.md.

    make cuda-compile

A kernel that spills registers, or keeps an array in memory that it should have in them, fails.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cuda.md"
BUILD = ROOT / "build" / "cuda"
BEGIN, END = "<!-- kernels: make cuda-compile -->\n", "<!-- end of kernels -->"

ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<card>sm_\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)

Use = tuple[int, int, int]  # registers a thread, bytes of shared memory a block, bytes of local memory


def compile_kernels() -> str:
    """The compiler's report on every kernel and architecture."""
    configure = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-DDGEMMA_CUDA=ON"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_CUDA_FLAGS=-Xptxas=-v"]
    subprocess.run(configure, check=True)
    build = ["cmake", "--build", str(BUILD), "--target", "dgemma_kernels", "--clean-first"]
    done = subprocess.run(build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(done.stdout)
    return done.stdout


def kernel_name(mangled: str) -> str:
    """``multiply_slab<Q6_K>`` of the name that the linker sees."""
    full = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout
    name = re.search(r"(\w+(?:<[\w:, ]+>)?)\(", full.replace("(anonymous namespace)::", ""))
    assert name is not None, full
    return re.sub(r"<(?:\w+::)*(\w+?)(?:Rows|Groups)\b", r"<\1", name[1])


def uses(report: str) -> dict[str, dict[str, Use]]:
    """kernel -> architecture -> use"""
    found: dict[str, dict[str, Use]] = defaultdict(dict)
    for entry in ENTRY.finditer(report):
        local = int(entry["stack"]) + int(entry["stores"]) + int(entry["loads"])
        found[kernel_name(entry["name"])][entry["card"]] = (int(entry["registers"]), int(entry["shared"] or 0), local)
    return found


def table(found: dict[str, dict[str, Use]]) -> str:
    cards = sorted({card for by_card in found.values() for card in by_card}, key=lambda card: int(card[3:]))
    lines = [
        f"| kernel | registers a thread: {' · '.join(cards)} | static shared memory a block | local memory |",
        "|---|---|---:|---:|",
    ]
    for kernel in sorted(found):
        by_card = found[kernel]
        registers = " · ".join(str(by_card[card][0]) for card in cards)
        shared, local = (max(use[i] for use in by_card.values()) for i in (1, 2))
        lines.append(f"| `{kernel}` | {registers} | {shared} | {local} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if shutil.which("nvcc") is None:
        raise SystemExit("make cuda-compile needs nvcc, CUDA's compiler, on PATH; it needs no card")
    found = uses(compile_kernels())
    release = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"release ([\d.]+)", release)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    head = f"CUDA {version[1] if version else '?'}:\n\n"
    PAGE.write_text(before + BEGIN + head + table(found) + END + after)
    spilling = [kernel for kernel, by_card in found.items() if any(use[2] for use in by_card.values())]
    print(f"{len(found)} kernels compiled; docs/cuda.md has their registers and shared memory")
    if spilling:
        raise SystemExit(f"these use the card's memory where registers should do: {', '.join(spilling)}")


if __name__ == "__main__":
    main()
