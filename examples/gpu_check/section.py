"""What a section of the report is, and how it is run: in a process of its own, which ggml-cuda ends on most errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Found = dict[str, Any]
# Everything on the first card, or a refusal that says what is missing: what is left on the CPU proves nothing.
ON_CARD = {"n_gpu_layers": 2**31 - 1, "main_gpu": 0}
# nvidia-smi's order of cards, so that the first is the same one for both.
TIMED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
# Products of float32 on the card are to be float32's, so that parity is of the engine and not of TF32. Plugins that
# happen to be installed warn, and the project's tests take a warning for an error.
ENVIRONMENT = {**TIMED, "NVIDIA_TF32_OVERRIDE": "0", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@dataclass(frozen=True)
class Section:
    """``measure`` takes the report's folder and gives what ``json.dumps`` takes; ``lines`` are Markdown of that;
    ``problem`` says in a sentence what is wrong with it, empty if nothing is. ``seconds``: the most it may take."""

    name: str
    title: str
    measure: Callable[[Path], Found]
    lines: Callable[[Found], list[str]]
    problem: Callable[[Found], str]
    seconds: float
    environment: dict[str, str]


def run_within(command: Sequence[str], seconds: float, **more: Any) -> tuple[int, str]:
    """Status and output. ``TimeoutExpired`` once it took too long and was ended with all that it had started: a bench
    that runs on would hold the card's memory, and its time, in the sections after it."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, **more
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output


def run_apart(section: Section, folder: Path) -> Found:
    """What the section found, with its ``problem``; a process that ended, or took too long, is a problem too."""
    command = [sys.executable, "-m", "gpu_check", str(folder), "--section", section.name]
    log = folder / "log.txt"
    try:
        with log.open("a") as errors:
            print(f"== {section.name}", file=errors, flush=True)
            status, output = run_within(
                command, section.seconds, env={**os.environ, **section.environment}, stderr=errors
            )
    except subprocess.TimeoutExpired:
        return {
            "problem": f"{section.name} took more than {section.seconds:.0f} s and was ended; {log.name} has its output"
        }
    if status:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        return {"problem": f"{section.name} ended with status {status}: {last}"}
    found: Found = json.loads(output.strip().rpartition("\n")[2])
    return {**found, "problem": section.problem(found)}
