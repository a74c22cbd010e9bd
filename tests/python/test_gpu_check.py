"""``make gpu-check`` without a card: its reports on made-up numbers, its refusals, and what it packs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu_check import environment, pack, proofs, step, whole
from gpu_check.card import device, used_bytes
from gpu_check.parity import parity_lines, parity_problem
from gpu_check.report import SECTIONS, make_report, markdown, problems
from gpu_check.section import Found, Section, run_apart, run_within

ROOT = Path(__file__).parents[2]
CARD = {"name": "NVIDIA H100", "driver_version": "580", "memory.total": "81559 MiB", "compute_cap": "9.0"}
PART = {"ms": 4.0, "gop": 400.0, "mb": 2000.0, "share_of_copy_rate": 0.25, "share_of_matrix_rate": 1.5}
BENCH: Found = {
    "model": "m.gguf",
    "file_type": "Q4_K_M",
    "prompt_tokens": [1024],
    "limits_of": "CUDA0",
    "limits": dict.fromkeys(
        ("copy_bytes_per_second", "f32_ops_per_second", "bf16_ops_per_second", "int8_ops_per_second"), 2e12
    ),
    "parts": {"sharp": {"experts": PART, "other": dict(PART, gop=None, mb=None, share_of_copy_rate=None)}},
    "step_ms": {"sharp": {"median": 10.0}},
    "encode_tokens_per_second": {"1024": {"median": 5000.0}},
    "load_seconds": 3.0,
    "peak_resident_bytes": None,
}
ROW = {"name": "short", "type": "f32", "exact": True, "rms": 1e-4, "bound": 1e-3, "largest": 2e-3, "finite": True}
ROW |= {"asked": "ggml", "layers": "ggml", "cpu_rms": 1e-6, "apart": 1.1e-4, "cpu_bytes": {}}
LAYER: Found = {
    "gate_up": "Q4_K",
    "down": "Q5_0",
    "is_bf16": False,
    "bytes": 459_000_000,
    "ours": [0.5, 0.4, 0.6],
    "ggml": [1.0, 1.0, 1.0],
    "kernels": {"gate_up_tile": [0.25]},
    "distance": 0.01,
}
PRODUCT: Found = {
    "name": "down",
    "types": "Q5_0",
    "bytes": 4_000_000,
    "operations": 3e9,
    "ggml": [0.02, 0.02, 0.02],
    "int8": [0.01, 0.01, 0.02],
    "bf16": [0.004, 0.005, 0.006],
    "int8_distance": 0.01,
    "bf16_distance": 0.002,
}
OWN: Found = {
    "card_layers": "own",
    "step_ms": {"ggml": {"first": 11.0, "sharp": 10.0}, "own": {"first": 8.0, "sharp": 7.5}},
    "encode_tokens_per_second": {"ggml": {"1024": 5000.0}, "own": {"1024": 6000.0}},
    "parts_ms": {"ggml": {"experts": 4.0, "other": 4.0}, "own": {"experts": 7.0, "other": 0.25}},
}
FOUND: dict[str, Found] = {  # what each section finds where all is well
    "kernels": {"run": 3, "failed": [], "status": 0},
    "parity": {"cases": [ROW]},
    "answers": {"seeds": 4, "steps": 40, "equal_steps": 39, "first": {"argmax": 1.0, "canvas": 0.95}},
    "experts": {"layers": [LAYER]},
    "products": {"products": [PRODUCT]},
    "full_size": {"bytes": 16_800_000_000, "seconds": 20.0},
    "memory": {
        "n_ctx": 8192,
        "driver_bytes": 17_900_000_000,
        "other_bytes": 0,
        "planned": {"CUDA0": {"weights": 16_791_000_000, "kv": 430_000_000, "reserve": 500_000_000}, "CPU": {"kv": 0}},
        "allocated": {"CUDA0": {"weights": 16_791_000_000, "kv": 429_000_000}},
    },
    "bench": BENCH,
    "own_layers": OWN,
    "step": {
        "card": "H100",
        "layers": {
            whose: dict(times, predicted={"experts": {"floor": 1.0, "expected": 8.0}})
            for whose, times in step.measured({"bench": BENCH, "own_layers": OWN}).items()
        },
    },
    "checkers": {"memcheck": "clean", "racecheck": "unfinished, clean so far", "synccheck": "absent"},
}
WRONG: dict[str, tuple[Found, str]] = {
    "kernels": ({"run": 3, "failed": ["test[card]"], "status": 1}, "1 kernels' tests differ"),
    "parity": ({"cases": [ROW, dict(ROW, rms=2e-3)]}, "not the reference's in short (F32)"),
    "answers": (
        {"seeds": 4, "steps": 40, "equal_steps": 9, "first": {"argmax": 1.0, "canvas": 0.25}},
        "only 25 % of the first step's decisions",
    ),
    "experts": ({"layers": [dict(LAYER, distance=float("nan"))]}, "farther apart than 0.05: Q4_K, Q5_0, 8 bits"),
    "products": (
        {"products": [PRODUCT, dict(PRODUCT, bf16_distance=float("nan"))]},
        "our dense products and ggml's are farther apart than 0.05: down (Q5_0) in BF16",
    ),
    "memory": (dict(FOUND["memory"], driver_bytes=18_100_000_000), "takes 18.10 GB of the card, more than 18.0"),
    "bench": (dict(BENCH, limits_of="CPU"), "not all layers lay on the card"),
    "own_layers": (dict(OWN, card_layers="ggml"), "our kernels did not compute the layers"),
    "checkers": (dict(FOUND["checkers"], racecheck="errors"), "racecheck did not pass"),
}
BY_NAME = {section.name: section for section in SECTIONS}


def well(section: Section, folder: Path) -> Found:
    return {**FOUND[section.name], "problem": section.problem(FOUND[section.name])}


def test_a_report_in_which_all_is_well(tmp_path: Path) -> None:
    report = make_report(tmp_path, CARD, run=well)
    assert problems(report) == []
    assert json.loads((tmp_path / "gpu-check.json").read_text()) == report
    text = (tmp_path / "gpu-check.md").read_text()
    assert text == markdown(report)
    assert "11 of 11 sections ran; nothing is wrong." in text
    for row in (
        "| short | F32 | exact | 1.0e-04 | 1.0e-03 | 1.0e-06 | 1.1e-04 | 2.0e-03 | nothing |",
        "| down | Q5_0 | 4.0 | 0.0200 | 150 | 0.0100 | 300 | 0.0100 | 0.0050 | 600 | 0.0020 |",
        "| Q4_K, Q5_0, 8 bits | 459 | 0.500 | 918 | 1.000 | 459 | 0.0100 |",
        "| CUDA0 | kv | 0.430 | 0.429 |",
        "rose by 17.900 GB (at most 18.0), +0.679 beside the 17.221 planned",
        "| experts | 4.00 | 500 | 25 % | 100000 | 150 % |",
        "| other | 4.00 |  |  |  | 150 % |",
        "| experts **off by more than a third** | 4.00 | 1.00 | 8.00 |",
        "| other | 4.00 | | |",
        "add up to 80 % of the step's wall time",
        "| a step, sharp, ms | 10.00 | 7.50 | 75 % |",
        "| experts, ms | 4.00 | 7.00 | 175 % |",
        "| part, the layers ours | measured, ms | floor | expected |",
        "| experts | 7.00 | 1.00 | 8.00 |",
        "- synccheck: absent",
    ):
        assert row in text, row


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name: str) -> None:
    found, said = WRONG[name]
    section = BY_NAME[name]
    assert section.problem(FOUND[name]) == ""
    assert said in section.problem(found)
    assert all(isinstance(line, str) for line in section.lines(found))


def test_a_section_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """Its sentence is in the report, which is written after every section."""
    written = []

    def run(section: Section, folder: Path) -> Found:
        path = folder / "gpu-check.json"
        written.append(len(json.loads(path.read_text())["sections"]) if path.exists() else 0)
        return {"problem": "the card is gone"} if section.name == "parity" else well(section, folder)

    report = make_report(tmp_path, CARD, run=run)
    assert written == list(range(len(SECTIONS)))
    assert problems(report) == ["the card is gone"]
    assert "**the card is gone**" in (tmp_path / "gpu-check.md").read_text()


def test_a_long_list_of_failures_is_cut() -> None:
    lines = proofs.kernel_lines({"run": 30, "failed": [f"test[card-{i}]" for i in range(25)]})
    assert lines[0].startswith("5 of 30")
    assert len(lines) == 22
    assert lines[-1] == "- and 5 more, in gpu-check.json"


def test_no_kernel_is_no_proof() -> None:
    assert "no test of a kernel ran" in proofs.kernel_problem({"run": 0, "failed": [], "status": 0})


def test_tests_that_end_pytest_are_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the report that an earlier run left."""
    (tmp_path / "kernels.xml").write_text('<testsuites><testcase name="a[card-1]"/></testsuites>')
    (tmp_path / "python").write_text("#!/bin/sh\nkill -ABRT $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    found = proofs.kernels(tmp_path)
    assert found == {"run": 0, "failed": [], "status": -6}
    assert "were ended with status -6; log.txt" in proofs.kernel_problem(found)


@pytest.mark.parametrize(
    "change",
    [{"finite": False}, {"rms": float("inf")}, {"cpu_bytes": {"kv": 4096}}, {"asked": "own"}],
    ids=["nan", "far", "on the CPU", "by ggml's kernels"],
)
def test_parity_fails(change: dict[str, Any]) -> None:
    assert parity_problem({"cases": [ROW, {**ROW, **change}]})
    assert "**failed**" in parity_lines({"cases": [{**ROW, **change}]})[-1]


def test_what_the_scheduler_left_on_the_cpu_is_shown() -> None:
    assert parity_lines({"cases": [{**ROW, "cpu_bytes": {"compute": 4096}}]})[-1].endswith("| compute 4096 |")


def test_the_kernels_tests_are_counted(tmp_path: Path) -> None:
    """Those on a card only; one that was skipped is no proof, and one that the card has no room for is none of its."""
    (tmp_path / "k.xml").write_text(
        '<testsuites><testsuite><testcase name="a[card-1]"/><testcase name="b[card-2]"><skipped/></testcase>'
        '<testcase name="f[card-3]"><skipped message="CUDA: a kernel could not have its shared memory (…)"/></testcase>'
        '<testcase name="c[emulated]"/><testcase name="e[one card]"/><testcase name="d_card"/></testsuite></testsuites>'
    )
    assert proofs.cases(tmp_path / "k.xml") == {"run": 2, "failed": ["b[card-2]"]}


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (0, "", "clean"),
        (99, "", "errors"),
        (-9, "", "unfinished, clean so far"),
        (-9, "========= Invalid __global__ read of size 4", "errors"),
        (1, "", "failed"),
    ],
)
def test_a_checkers_verdict(status: int, text: str, said: str) -> None:
    assert proofs.verdict(status, text) == said


def test_without_the_checker() -> None:
    assert whole.nothing_wrong({}) == ""
    assert proofs.checker_problem(dict.fromkeys(proofs.CHECKERS, "absent")) == ""


def test_a_section_runs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends its process, and a time that is up, are sentences. (``step`` fails: no bench is there.)"""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "examples"))
    (tmp_path / "gpu-check.json").write_text('{"sections": {}}')
    found = run_apart(BY_NAME["step"], tmp_path)
    assert found == {
        "problem": "step ended with status 1: there are no times to set beside the prediction: the bench failed"
    }
    late = replace(BY_NAME["step"], seconds=0)
    assert "step took more than 0 s" in run_apart(late, tmp_path)["problem"]


def test_what_a_section_started_ends_with_it(tmp_path: Path) -> None:
    """A bench that ran on would hold the card in the sections after it."""
    read, write = os.pipe()
    with pytest.raises(subprocess.TimeoutExpired):
        run_within(["sh", "-c", "(sleep 3; echo alive >&2) & echo started >&2; wait"], 0.5, stderr=write)
    os.close(write)
    with open(read) as errors:
        assert errors.read() == "started\n"  # and its end, once nobody is left to write


def test_time_that_is_over(tmp_path: Path) -> None:
    given = []

    def run(section: Section, folder: Path) -> Found:
        given.append(section.seconds)
        return well(section, folder)

    report = make_report(tmp_path, CARD, run=run, within=100.0)
    assert max(given) <= 100.0
    assert min(given) == BY_NAME["step"].seconds  # its own is less
    report = make_report(tmp_path, CARD, run=run, within=0.0)
    assert len(given) == len(SECTIONS)
    assert problems(report)[0] == "kernels was not begun: the 0 s of --within were over"


def test_agreement() -> None:
    """Of two positions: equal for a step, then not, then again; and a first step that differs in one of two."""
    steps = [{"argmax": np.array([i, 5]), "canvas": np.array([7, i])} for i in range(3)]
    parted = [steps[0], {"argmax": np.array([9, 5]), "canvas": steps[1]["canvas"]}, steps[2]]
    other = [{"argmax": np.array([0, 6]), "canvas": steps[0]["canvas"]}]
    assert proofs.agreement([(steps, parted), (steps, other)]) == {
        "steps": 6,
        "equal_steps": 1,
        "first": {"argmax": 0.75, "canvas": 1.0},
    }
    assert proofs.agreement([(steps, steps)])["equal_steps"] == 3


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``driver(script)``: what nvidia-smi does; before the call there is none."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(script: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return install


@pytest.mark.parametrize("ask", [device, environment.card_architecture])
def test_no_driver_and_no_card(driver, ask) -> None:
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU: there is no nvidia-smi on this machine"):
        ask()
    driver("echo No devices were found; exit 6")
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU: No devices were found"):
        ask()


def test_what_the_driver_says(driver) -> None:
    driver("echo 'NVIDIA H100, 580, 81559 MiB, 9.0'")
    assert device() == CARD
    driver("echo 9.0")
    assert environment.card_architecture() == "90"
    driver("echo 512")
    assert used_bytes() == 512 << 20


def test_no_compiler(driver, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="needs nvcc"):
        environment.main([str(tmp_path / "venv"), "--architecture", "90"])


def archive(path: Path, names: tuple[str, ...] = pack.NEEDED) -> Path:
    with tarfile.open(path, "w:xz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def test_an_archive_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(SystemExit, match="cannot be read as an archive"):
        pack.check_archive(tmp_path / "text")
    with pytest.raises(SystemExit, match=r"is no ggml with CUDA: lib/libggml-cuda.so is not in it"):
        pack.check_archive(archive(tmp_path / "ggml-cpu.tar.xz", pack.NEEDED[1:]))


def test_a_pack_without_ggml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds 0 archives"):
        environment.find_archive(tmp_path)
    assert environment.find_archive(archive(tmp_path / "ggml-1.tar.xz").parent).name == "ggml-1.tar.xz"


def test_ggml_lies_where_the_package_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgemma._native import library_dir

    monkeypatch.setattr(
        environment, "runtime_libraries", lambda: {"libcublas.so.13": Path("/elsewhere/libcublas.so.13")}
    )
    environment.unpack_ggml(archive(tmp_path / "ggml.tar.xz"), tmp_path)
    (found,) = ({path.name for path in (tmp_path / "llama_cpp" / "lib").iterdir()},)
    assert {"libggml-cuda.so", "libcublas.so.13", "cmake"} <= found
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "llama_cpp")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    assert library_dir() == tmp_path / "llama_cpp" / "lib"


@pytest.mark.parametrize("arguments", [["-m", "gpu_check"], ["examples/gpu_check/environment.py"]])
def test_help(arguments: list[str]) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "examples")}
    done = subprocess.run([sys.executable, *arguments, "--help"], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0
    assert "FOLDER" in done.stdout
