"""The file of full size: that it is there, what it takes of the card's memory, and its times by part."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .card import PeakMemory
from .section import ON_CARD, ROOT, Found

N_CTX = 8192
PLACEMENT = ON_CARD
BENCH_PLACEMENT = ("-ngl", "all", "-mg", "0")  # the same on the command line
PREFIX = 1024
MOST_BYTES = 18.0e9
MODEL = ROOT / "build" / "full-size.gguf"  # not in the report's folder, which travels


def full_size(folder: Path) -> Found:
    from full_size import write_model

    begin = time.monotonic()
    MODEL.parent.mkdir(exist_ok=True)
    write_model(MODEL, "Q4_K_M")
    return {"bytes": MODEL.stat().st_size, "seconds": round(time.monotonic() - begin, 1)}


def full_size_lines(found: Found) -> list[str]:
    return [f"Random weights, Q4_K_M, 30 layers: {found['bytes'] / 1e9:.2f} GB, written in {found['seconds']} s."]


def memory(folder: Path) -> Found:
    """The card's memory while one session of 8192 positions answers, as the driver reports it, beside the plan."""
    with PeakMemory() as driver:
        # Only now: this process must not have asked CUDA for anything when the watch begins.
        from dgemma import Engine, GenerationConfig

        with Engine(MODEL, n_ctx=N_CTX, **PLACEMENT) as engine:
            session = engine.session()
            prompt = [2 + i % 1000 for i in range(PREFIX)]
            config = GenerationConfig(max_denoising_steps=4, confidence_threshold=0.0)
            for _ in session.generate(prompt, max_new_tokens=engine.info.canvas_length, seed=1, config=config):
                pass
            planned, allocated = engine.plan.memory, engine.memory
            time.sleep(0.5)  # a look at the driver's figure while all is there
    return {
        "n_ctx": N_CTX,
        "driver_bytes": driver.taken,
        "other_bytes": driver.before,
        "planned": planned,
        "allocated": allocated,
    }


def planned_bytes(found: Found) -> int:
    """On cards, but for what the plan keeps free for the driver."""
    planned = found["planned"].items()
    return sum(n for device, uses in planned if device != "CPU" for use, n in uses.items() if use != "reserve")


def memory_lines(found: Found) -> list[str]:
    taken, planned = found["driver_bytes"], planned_bytes(found)
    rows = [
        (device, use, n, found["allocated"].get(device, {}).get(use, 0))
        for device, uses in found["planned"].items()
        for use, n in uses.items()
    ]
    lines = [
        f"A session of {found['n_ctx']} positions: the driver's figure rose by {taken / 1e9:.3f} GB (at most "
        f"{MOST_BYTES / 1e9:.1f}), {(taken - planned) / 1e9:+.3f} beside the {planned / 1e9:.3f} planned: the driver's "
        f"context, kernels and ggml-cuda's pools. {found['other_bytes'] / 1e9:.3f} GB were in use before.",
        "",
        "| device | for | planned, GB | allocated, GB |",
        "|---|---|---:|---:|",
    ]
    return lines + [
        f"| {device} | {use} | {n / 1e9:.3f} | {got / 1e9:.3f} |" for device, use, n, got in rows if n + got
    ]


def memory_problem(found: Found) -> str:
    taken = found["driver_bytes"]
    if taken <= MOST_BYTES:
        return ""
    return f"a session of {found['n_ctx']} positions takes {taken / 1e9:.2f} GB of the card, more than 18.0"


def bench(folder: Path) -> Found:
    return run_bench()


def run_bench(*more: str) -> Found:
    command = [
        str(Path(sys.executable).with_name("dgemma")),
        "bench",
        "-m",
        str(MODEL),
        *BENCH_PLACEMENT,
        "--json",
    ]
    command += ["-p", str(PREFIX), "--steps", "8", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("dgemma bench failed; its own sentence is in log.txt")
    report: Found = json.loads(done.stdout.strip().rpartition("\n")[2])
    return report


def bench_lines(found: Found) -> list[str]:
    limits = found["limits"]
    rates = ", ".join(
        f"{name} {limits[key] / 1e12:.{digits}f} {unit}"
        for name, key, digits, unit in (
            ("copy", "copy_bytes_per_second", 2, "TB/s"),
            ("F32", "f32_ops_per_second", 0, "TFLOP/s"),
            ("F16", "bf16_ops_per_second", 0, "TFLOP/s"),
            ("Q8_0", "int8_ops_per_second", 0, "Top/s"),
        )
        if limits[key]
    )
    lines = [
        f"`dgemma bench` on {found['model']} ({found['file_type']}), {found['prompt_tokens'][0]} tokens before the "
        f"canvas. Measured on {found['limits_of']} with ggml: {rates}. Shares are of the time that these rates ask "
        "for: a product of ggml's is the limit, so ours may pass 100 %.",
        "",
    ]
    for rows, parts in found["parts"].items():
        lines += [
            f"{rows} rows, {found['step_ms'][rows]['median']:.2f} ms a step:",
            "",
            "| part | ms | GB/s | of the copy rate | Gop/s | of the matrix rate |",
            "|---|---:|---:|---:|---:|---:|",
            *(part_line(name, part) for name, part in parts.items()),
            "",
        ]
    encode = ", ".join(
        f"{n} tokens: {rate['median']:.0f} tokens/s" for n, rate in found["encode_tokens_per_second"].items()
    )
    return [
        *lines,
        f"Load {found['load_seconds']:.1f} s. Encode {encode}. Peak resident memory of the host, the mapped "
        f"file included: {(found['peak_resident_bytes'] or 0) / 1e9:.2f} GB.",
    ]


def part_line(name: str, part: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    def rate(amount: float | None) -> str:
        return "" if amount is None or not part["ms"] else f"{amount / part['ms']:.0f}"

    columns = [
        name.replace("_", " "),
        f"{part['ms']:.2f}",
        rate(part["mb"]),
        share(part["share_of_copy_rate"]),
        rate(None if part["gop"] is None else 1000 * part["gop"]),
        share(part["share_of_matrix_rate"]),
    ]
    return f"| {' | '.join(columns)} |"


def bench_problem(found: Found) -> str:
    return "" if found["limits_of"] != "CPU" else "not all layers lay on the card: the bench's limits are the CPU's"


def own_layers(folder: Path) -> Found:
    """The same bench with the layers in our kernels, beside the bench before it in the report."""
    theirs = json.loads((folder / "gpu-check.json").read_text())["sections"].get("bench", {})
    if "parts" not in theirs:
        raise SystemExit("there are no times to set beside those of our layers: the bench failed")
    ours = run_bench("--card-layers", "own")
    both = {"ggml": theirs, "own": ours}
    return {
        "card_layers": ours["card_layers"],
        "step_ms": {whose: medians(bench["step_ms"]) for whose, bench in both.items()},
        "encode_tokens_per_second": {
            whose: medians(bench["encode_tokens_per_second"]) for whose, bench in both.items()
        },
        "parts_ms": {whose: part_times(bench) for whose, bench in both.items()},
    }


def medians(spreads: dict[str, Any]) -> dict[str, float]:
    return {name: spread["median"] for name, spread in spreads.items()}


def part_times(bench: dict[str, Any]) -> dict[str, float]:
    """Of sharp rows, which are what most are after the first steps; milliseconds."""
    return {name: part["ms"] for name, part in bench["parts"]["sharp"].items()}


def own_layers_lines(found: Found) -> list[str]:
    steps, encode, parts = found["step_ms"], found["encode_tokens_per_second"], found["parts_ms"]
    rows = [(f"a step, {kind}, ms", steps["ggml"][kind], ms) for kind, ms in steps["own"].items()]
    rows += [(f"encode {n} tokens, tokens/s", encode["ggml"][n], rate) for n, rate in encode["own"].items()]
    rows += [(f"{name.replace('_', ' ')}, ms", parts["ggml"][name], ms) for name, ms in parts["own"].items()]
    return [
        "The same file with the layers in our kernels (`--card-layers own`), all but how attention mixes values:",
        "",
        "| | ggml's layers | ours | ours to ggml's |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {theirs:.2f} | {ours:.2f} | {100 * ours / theirs:.0f} % |" for name, theirs, ours in rows),
    ]


def own_layers_problem(found: Found) -> str:
    return "" if found["card_layers"] == "own" else "our kernels did not compute the layers of the full-size file"


def nothing_wrong(found: Found) -> str:
    return ""
