#!/usr/bin/env python3
"""Proves dgemma on a machine with an NVIDIA GPU, in one command: ``make gpu-check``.

    python examples/gpu_check.py FOLDER [--model FILE]

Runs every kernel against its twin on the card (tests/cuda), answers of the CPU against answers of the card, one layer's
experts by our kernels and by ggml's, and then ``dgemma bench``; writes FOLDER/gpu-check.json and gpu-check.md. Exits
with 1 and one sentence where there is no card or something failed. Needs no network.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
SEEDS = range(4)
CANVAS, N_EXPERTS = 256, 128
EXPERT = {"gate_up": (2 * 704, 2816), "down": (2816, 704)}
EXPERT_TYPES = [
    ("Q4_K", "Q5_0"),
    ("Q4_K", "Q8_0"),
    ("Q5_K", "Q5_1"),
    ("Q5_K", "Q8_0"),
    ("Q8_0", "Q8_0"),
    ("Q4_0", "Q4_0"),
]


def device() -> dict[str, str]:
    """What the driver says of the first card."""
    fields = ["name", "driver_version", "memory.total", "compute_cap"]
    if shutil.which("nvidia-smi") is None:
        raise SystemExit("gpu-check needs an NVIDIA GPU: there is no nvidia-smi on this machine")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"gpu-check needs an NVIDIA GPU: {done.stdout.strip() or done.stderr.strip()}")
    return dict(zip(fields, done.stdout.strip().split(", "), strict=True))


def kernels(folder: Path) -> dict[str, Any]:
    """The kernels' tests on the card: how many passed, and the names of those that did not."""
    report = folder / "kernels.xml"
    chosen = ["-k", "card and not emulated", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", "-q", "tests/cuda", *chosen]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr)
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    on_card = [case for case in cases if "card" in case.get("name", "").partition("[")[2]]
    failed = [case.get("name") for case in on_card if {child.tag for child in case} & {"failure", "error", "skipped"}]
    return {"run": len(on_card), "failed": failed}


def answers(model: Path) -> dict[str, Any]:
    """Steps of answers with the head on the card that decide as the CPU's do, until the first that does not."""
    sys.path.insert(0, str(ROOT / "tests" / "cuda"))
    from answers import generate

    steps = equal = 0
    for seed in SEEDS:
        cpu, card = (generate(str(model), seed, layers=layers) for layers in (0, -1))
        steps += len(cpu)
        for one, other in zip(cpu, card, strict=False):
            if (one["argmax"] != other["argmax"]).any() or (one["canvas"] != other["canvas"]).any():
                break
            equal += 1
    return {"seeds": len(SEEDS), "steps": steps, "equal_steps": equal}


def experts() -> list[dict[str, Any]]:
    """One layer's experts at the released model's shape, by our kernels and by ggml's, for each pair of types."""
    from dgemma._core import time_experts

    sys.path.insert(0, str(ROOT / "tests" / "cuda"))
    from expert_problems import quantized

    random = np.random.default_rng(0)
    one = {name: random.normal(0, shape[1] ** -0.5, shape).astype(np.float32) for name, shape in EXPERT.items()}
    found = []
    for gate_up, down in EXPERT_TYPES:
        # One expert's weights for all: as many bytes to read, in a fraction of the time to make.
        weights = {
            name: np.repeat(quantized(one[name][None], kind), N_EXPERTS, axis=0)
            for name, kind in (("gate_up", gate_up), ("down", down))
        }
        times = time_experts(
            logits=random.standard_normal((CANVAS, N_EXPERTS), dtype=np.float32),
            n_used=8,
            expert_scale=np.ones(N_EXPERTS, np.float32),
            x=random.standard_normal((CANVAS, one["gate_up"].shape[1]), dtype=np.float32),
            gate_up=weights["gate_up"],
            gate_up_type=gate_up,
            down=weights["down"],
            down_type=down,
            n_runs=50,
        )
        n_bytes = sum(rows.nbytes for rows in weights.values())
        found.append({"gate_up": gate_up, "down": down, "bytes": n_bytes, **times})
    return found


def expert_lines(found: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"One layer's experts ({CANVAS} tokens, 8 of {N_EXPERTS}; median of {len(found[0]['ours'])} batches), GB/s of "
        "its weights, and how far apart the two results are:",
        "",
        "| gate·up, down | MB | ours, ms | GB/s | ggml, ms | GB/s | apart |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        ms = {name: statistics.median(row[name]) for name in ("ours", "ggml")}
        columns = " | ".join(f"{ms[name]:.3f} | {row['bytes'] / ms[name] / 1e6:.0f}" for name in ms)
        lines.append(
            f"| {row['gate_up']}, {row['down']} | {row['bytes'] / 1e6:.0f} | {columns} | {row['distance']:.4f} |"
        )
    names = list(found[0]["kernels"])
    lines += ["", "Each of our kernels alone, ms:", "", f"| gate·up, down | {' | '.join(names)} |"]
    lines.append("|---|" + "---:|" * len(names))
    for row in found:
        columns = " | ".join(f"{statistics.median(row['kernels'][name]):.4f}" for name in names)
        lines.append(f"| {row['gate_up']}, {row['down']} | {columns} |")
    return lines


def bench(model: Path) -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("dgemma")), "bench", "-m", str(model), "-ngl", "-1", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("gpu-check: dgemma bench failed; its own sentence is above")
    report: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return report


def markdown(report: dict[str, Any]) -> str:
    card, kernels, answers, bench = (report[key] for key in ("device", "kernels", "answers", "bench"))
    lines = [
        f"# gpu-check: {card['name']}",
        "",
        f"{report['date']}, driver {card['driver_version']}, {card['memory.total']}, compute capability "
        f"{card['compute_cap']}; dgemma {bench['dgemma']}.",
        "",
        f"- Kernels against their twins: {kernels['run'] - len(kernels['failed'])} of {kernels['run']} pass.",
        *(f"  - failed: `{name}`" for name in kernels["failed"]),
        f"- Answers of the card against the CPU's, {answers['seeds']} seeds: {answers['equal_steps']} of "
        f"{answers['steps']} steps are the same before the first that is not.",
        "",
        *expert_lines(report["experts"]),
        "",
        f"`dgemma bench` on {bench['model']} ({bench['file_type']}), milliseconds of a step by part:",
        "",
        "| part | " + " | ".join(bench["parts"]) + " |",
        "|---|" + "---:|" * len(bench["parts"]),
    ]
    names = list(dict.fromkeys(name for parts in bench["parts"].values() for name in parts))
    for name in names:
        values = (f"{parts[name]['ms']:.2f}" if name in parts else "" for parts in bench["parts"].values())
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(values) + " |")
    steps = ", ".join(f"{kind} {step['median']:.2f} ms" for kind, step in bench["step_ms"].items())
    return "\n".join([*lines, "", f"A whole step: {steps}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument("--model", type=Path, metavar="FILE", required=True, help="what to answer and bench with")
    args = parser.parse_args()
    found = device()
    from dgemma._core import cuda_unavailable

    if why := cuda_unavailable():
        raise SystemExit(f"gpu-check: {why}")
    args.folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"date": datetime.now(timezone.utc).isoformat(timespec="minutes"), "device": found}
    report["kernels"] = kernels(args.folder)
    report["answers"] = answers(args.model)
    report["experts"] = experts()
    report["bench"] = bench(args.model)
    (args.folder / "gpu-check.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.folder / "gpu-check.md").write_text(markdown(report))
    print(markdown(report))
    if report["kernels"]["failed"] or not report["kernels"]["run"]:
        raise SystemExit("gpu-check: kernels differ from their twins on this card")


if __name__ == "__main__":
    main()
