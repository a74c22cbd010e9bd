"""Kernels against their twins, NVIDIA's checkers over the same tests, and answers of the card against the CPU's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .section import ON_CARD, ROOT, Found

CHOSEN = ["-k", "card and not emulated"]
SEEDS = range(4)
MOST_NAMED = 20
CHECKERS = ("memcheck", "racecheck", "synccheck")
DECIDED = ("argmax", "canvas")
# Of the first step's decisions. BF16 in place of F32 throughout the CPU's layers leaves 98.7 % the same (24 seeds), and
# another seed's are the same in 0.9 %.
LEAST_EQUAL = 0.9
CHECKER_SECONDS = 60  # of one checker: it slows a kernel down up to a hundred times


def cases(report: Path) -> Found:
    """The kernels' tests on the card in a JUnit report: how many, and the names of those that did not pass. Kernels for
    cards with more shared memory are left out."""
    all_cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    on_card = [case for case in all_cases if "card" in parameters(case.get("name", "")) and not has_no_room(case)]
    failed = [case.get("name") for case in on_card if {child.tag for child in case} & {"failure", "error", "skipped"}]
    return {"run": len(on_card), "failed": failed}


def has_no_room(case: ElementTree.Element) -> bool:
    return any("shared memory" in skipped.get("message", "") for skipped in case.iter("skipped"))


def parameters(test: str) -> list[str]:
    """Of a test's name: those of ``test_x[card-4096]`` are card and 4096; "one card" is a stand-in's placement."""
    return test.partition("[")[2].rstrip("]").split("-")


def kernels(folder: Path) -> Found:
    report = folder / "kernels.xml"
    report.unlink(missing_ok=True)  # an earlier run's would stand for this one, should pytest be ended
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/cuda", *CHOSEN]
    done = subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, stdout=sys.stderr)
    found = cases(report) if report.exists() else {"run": 0, "failed": []}
    return {**found, "status": done.returncode}


def kernel_lines(found: Found) -> list[str]:
    lines = [f"{found['run'] - len(found['failed'])} of {found['run']} tests of kernels against their twins pass."]
    lines += [f"- failed: `{name}`" for name in found["failed"][:MOST_NAMED]]
    more = len(found["failed"]) - MOST_NAMED
    return [*lines, f"- and {more} more, in gpu-check.json"] if more > 0 else lines


def kernel_problem(found: Found) -> str:
    if found["status"] not in (0, 1):  # 1: some failed
        return f"the kernels' tests were ended with status {found['status']}; log.txt says in which"
    if not found["run"]:
        return "no test of a kernel ran on this card"
    return f"{len(found['failed'])} kernels' tests differ from their twins on this card" if found["failed"] else ""


def checkers(folder: Path) -> Found:
    """Each checker over as many of the kernels' tests as its time allows; "absent" where the tool is."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return dict.fromkeys(CHECKERS, "absent")
    return {name: _check(tool, name) for name in CHECKERS}


def _check(tool: str, name: str) -> str:
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/cuda", *CHOSEN]
    command = [tool, "--tool", name, "--error-exitcode", "99", "--print-limit", "5", *tests]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(CHECKER_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        output.seek(0)
        text = output.read()
    print(text, file=sys.stderr)
    return verdict(process.returncode, text)


def verdict(status: int, text: str) -> str:
    """Of a checker that ended so: "clean", "unfinished, clean so far", "errors" or "failed"."""
    if (
        "========= Invalid" in text
        or "========= Error: Race" in text
        or "========= Barrier error" in text
        or status == 99
    ):
        return "errors"
    if status == -9:
        return "unfinished, clean so far"
    return "clean" if status == 0 else "failed"


def checker_lines(found: Found) -> list[str]:
    return [f"- {name}: {found[name]}" for name in CHECKERS]


def checker_problem(found: Found) -> str:
    bad = [name for name in CHECKERS if found[name] in ("errors", "failed")]
    return f"compute-sanitizer's {', '.join(bad)} did not pass; log.txt has what it said" if bad else ""


def answers(folder: Path, layers: int = ON_CARD["n_gpu_layers"]) -> Found:
    """Of answers with all layers on the card: the share of positions whose first draft, and first sampled token, are
    the CPU's, and how many steps decide as the CPU's do until the first that does not."""
    from dgemma.convert import convert
    from random_checkpoint import CheckpointConfig, write_checkpoint

    sys.path.insert(0, str(ROOT / "tests" / "cuda"))
    from answers import generate

    pairs = []
    with tempfile.TemporaryDirectory() as place:
        model = Path(place, "random.gguf")
        convert(write_checkpoint(Path(place, "checkpoint"), CheckpointConfig()), model, type="bf16")
        for seed in SEEDS:
            pairs.append([generate(str(model), seed, layers=n) for n in (0, layers)])
    return {"seeds": len(pairs), **agreement(pairs)}


def agreement(pairs: Sequence[Sequence[list[dict[str, Any]]]]) -> Found:
    """Of pairs of answers, each a list of steps."""
    equal = 0
    for cpu, card in pairs:
        same = [
            all((one[name] == other[name]).all() for name in DECIDED) for one, other in zip(cpu, card, strict=False)
        ]
        equal += [*same, False].index(False)
    first = {name: float(np.mean([cpu[0][name] == card[0][name] for cpu, card in pairs])) for name in DECIDED}
    return {"steps": sum(len(cpu) for cpu, _ in pairs), "equal_steps": equal, "first": first}


def answer_lines(found: Found) -> list[str]:
    first = found["first"]
    return [
        f"{found['seeds']} seeds: of the first step's positions {100 * first['argmax']:.1f} % have the CPU's draft and "
        f"{100 * first['canvas']:.1f} % its next token; {found['equal_steps']} of {found['steps']} steps decide as the "
        "CPU's before the first that does not. The layers round differently there, so that close decisions may part, "
        "and what follows with them."
    ]


def answer_problem(found: Found) -> str:
    least = min(found["first"].values())
    if least >= LEAST_EQUAL:
        return ""
    return f"only {100 * least:.0f} % of the first step's decisions on the card are the CPU's for the same seeds"
