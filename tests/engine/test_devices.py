"""Engines on two stand-in cards (standin.cpp): the same numbers wherever the weights lie, and the memory that was
planned.

In exact mode cards and CPU compute with the very same kernels, whatever lies where, so logits are equal to the last
bit. Outside of it the CPU has its own products and a card ggml's fused GELU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standin import build_cards
from standin_worker import PLACEMENTS, RESERVE

from dgemma._native import core
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint

Worker = Callable[[str, Path], Any]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """``worker(job, model)``: what a job of standin_worker.py found out, in a process of its own."""
    library = build_cards(tmp_path_factory.mktemp("standin"))

    def run(job: str, model: Path) -> Any:
        parts = [sys.executable, str(HERE / "standin_worker.py"), str(library), str(model), job]
        done = subprocess.run(parts, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        if report == "other ggml":
            pytest.skip("the stand-in's layouts are another ggml's")
        return report

    return run


@pytest.fixture(scope="module")
def exact(worker: Worker, model_path: Callable[..., Path]) -> dict[str, Any]:
    report: dict[str, Any] = worker("exact", model_path("short"))
    return report


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_same_logits_wherever_the_weights_lie(exact: dict[str, Any], placement: str) -> None:
    assert exact["scale"] > 1
    assert exact[placement]["error"] == 0


def test_the_placements_are_what_they_say(exact: dict[str, Any]) -> None:
    layers = {name: exact[name]["layers"] for name in PLACEMENTS}
    heads = {name: exact[name]["head"] for name in PLACEMENTS}
    alike = [["CARD0", "CARD0"], ["CARD0", "CARD0"], ["CARD1", "CARD1"]]
    assert layers["split"] == layers["what fits"] == alike
    assert layers["one card"] == [["CARD1", "CARD1"]] * 3
    assert layers["last layers"] == [["CPU", "CPU"]] * 2 + [["CARD0", "CARD0"]]
    assert layers["head alone"] == [["CPU", "CPU"]] * 3
    assert [experts for _, experts in layers["experts on the CPU"]] == ["CPU"] * 3
    assert [experts for _, experts in layers["some experts"]] == ["CPU", "CPU", "CARD0"]
    assert [experts for _, experts in layers["by pattern"]] == ["CARD0", "CPU", "CARD1"]
    assert layers["conditioning on the other card"] == [["CARD0", "CARD0"]] * 3
    assert layers["experts on the other card"] == [["CARD0", "CARD1"]] * 3
    assert (heads["head alone"], heads["by pattern"], heads["last layers"]) == ("CARD0", "CPU", "CARD1")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_memory_is_what_was_planned(exact: dict[str, Any], placement: str) -> None:
    """Weights, cache and logits to the byte, the buffers of the passes at most; and the cards themselves say the
    same, but for the alignment of tensors."""
    report = exact[placement]
    memory, plan = report["memory"], report["plan"]
    assert memory.keys() == plan.keys()
    for device, uses in plan.items():
        for purpose in ("weights", "kv", "sampler"):
            assert memory[device].get(purpose, 0) == uses.get(purpose, 0), (device, purpose)
        computes = device != "CPU" or any("CPU" in parts for parts in [*report["layers"], [report["head"]]])
        assert int(computes) <= memory[device]["compute"] <= uses["compute"]
        assert computes == (uses["compute"] > 0)
        assert uses.get("reserve") == (None if device == "CPU" else RESERVE)
    for card, used in enumerate(report["used"]):
        planned = sum(memory.get(f"CARD{card}", {}).values())
        assert planned <= used <= planned + 128 * 100


def test_nothing_is_left_on_the_cards(exact: dict[str, Any]) -> None:
    assert all(exact[name]["left"] == [0, 0] for name in PLACEMENTS)


def test_a_pass_goes_from_card_to_card_once(exact: dict[str, Any]) -> None:
    """Eleven passes: six chunks of encoding and five steps. An encoder has no head to compute."""
    graphs = {name: exact[name]["graphs"] for name in PLACEMENTS}
    assert graphs["split"] == [11, 11]
    assert graphs["one card"] == [0, 11]
    assert graphs["head alone"] == [5, 0]
    # Experts elsewhere: a card is left once in each layer and come back to once. The encoder's last layer has none.
    assert graphs["experts on the CPU"] == [11 * 3, 6 * 1 + 5 * 2]
    assert graphs["some experts"] == [11 * 3, 5]
    assert graphs["experts on the other card"] == [6 * 3 + 5 * 4, 6 * 2 + 5 * 3]


def test_our_products_are_used_where_the_weights_are_on_the_cpu(
    worker: Worker, model_path: Callable[..., Path], exact: dict[str, Any]
) -> None:
    """Outside of exact mode, beside the logits of one card: the same on any cards; not the same with experts on the
    CPU, which rounds products and GELU otherwise. No tolerance would tell more: rounding can choose other experts."""
    report = worker("fast", model_path("short", "q8_0"))
    for name in ("what fits", "split", "one card", "experts on the other card"):
        assert report[name]["error"] == 0, name
    for name in ("experts on the CPU", "last layers"):
        assert report[name]["error"] > 0, name
    # Our products are nodes that no card can compute: one of them and a pass would be cut in pieces.
    assert report["split"]["graphs"] == [11, 11]
    assert report["one card"]["graphs"] == [0, 11]
    # Our kernel for experts keeps no product of all chosen experts, which is what ggml's need most memory for.
    ours, ggmls = (each["experts on the CPU"]["memory"]["CPU"]["compute"] for each in (report, exact))
    assert (ours < ggmls) == core.has_own_product("q8_0")


def test_answers_over_blocks(worker: Worker, model_path: Callable[..., Path]) -> None:
    answers = worker("answers", model_path("short"))
    expected = answers.pop("cpu")
    assert len(expected) > 1
    assert answers == dict.fromkeys(PLACEMENTS, expected)


def test_a_card_that_is_lost(worker: Worker, model_path: Callable[..., Path]) -> None:
    said = worker("lost", model_path("short"))
    assert said["lost"] == (
        "BackendError: a device failed in the middle of a pass on CARD0, CARD1, CPU (GGML status: error (operation "
        "failed)); n_gpu_layers=0 runs on the CPU alone"
    )
    assert said["held"] == 4  # what was encoded before it
    assert said["again"] == 5
    assert said["no room"].startswith("BackendError: CARD1: not enough memory for the key/value cache")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tokenizer, so that commands can run it."""
    folder = tmp_path_factory.mktemp("spoken")
    checkpoint = write_checkpoint(folder / "checkpoint", CheckpointConfig())
    convert(checkpoint, folder / "m.gguf", type="f32")
    return folder / "m.gguf"


LOST = (
    "dgemma: a device failed in the middle of a pass on CARD0, CARD1, CPU (GGML status: error (operation failed)); "
    "n_gpu_layers=0 runs on the CPU alone"
)


def test_commands_whose_card_is_lost(worker: Worker, spoken: Path) -> None:
    """One line on stderr and exit code 1; what was answered before it stands."""
    said = worker("commands", spoken)
    code, answered, _ = said["run"]
    assert (code, len(answered.strip()) > 0) == (0, True)
    first = said["run, lost at once"]
    assert (first[0], first[1], first[2].splitlines()[-1]) == (1, "", LOST)
    code, part, errors = said["run, lost in the second block"]
    assert (code, errors.splitlines()[-1]) == (1, LOST)
    assert answered.startswith(part.strip())
    assert 0 < len(part.strip()) < len(answered.strip())
    assert (said["bench"][0], said["bench"][2].splitlines()[-1]) == (1, LOST)


def test_a_card_that_does_not_start(worker: Worker, model_path: Callable[..., Path]) -> None:
    said = worker("unstartable", model_path("short"))
    assert said == "BackendError: CARD1: the device could not be started; n_gpu_layers=0 runs on the CPU"


def test_memory_that_is_gone_after_the_plan(worker: Worker, model_path: Callable[..., Path]) -> None:
    """In the order in which it is asked for."""
    said = worker("taken", model_path("short"))
    assert [words.split(";")[0].partition(" (")[0] for words in said] == [
        "BackendError: CARD0: not enough memory for the weights",
        "BackendError: CARD0: not enough memory for the key/value cache",
        "BackendError: CARD0: not enough memory for the logits",
        "BackendError: not enough memory for the compute buffers",
        "nothing was raised",
    ]
    assert said[0].endswith("; a smaller n_gpu_layers, or a larger n_cpu_moe, leaves more on the CPU")
    assert said[1].endswith("; a smaller n_ctx needs less")
    assert said[2].endswith("; a larger n_cpu_moe leaves more on the CPU")
    assert said[3].endswith("; a smaller n_ctx or n_batch needs less, and n_gpu_layers=0 none of a GPU")


def test_a_cuda_card_without_our_kernels(worker: Worker, model_path: Callable[..., Path]) -> None:
    said = worker("named_cuda", model_path("short"))
    if not said["why"]:
        pytest.skip("this build has the kernels, and a card that they run on")
    line = f"sends each step's logits to the CPU: {said['why']}"
    assert said["all"] == [f"CUDA1 {line}"]
    assert said["layers on the CPU"] == [f"CUDA0 {line}"]
    assert said["head on the CPU"] == said["none"] == said["exact"] == []
    code, listed, missing = said["list"]
    assert (code, listed.count("CUDA")) == (0, 2)
    assert missing == f"dgemma: sampling and self-conditioning stay on the CPU: {said['why']}\n"


def test_a_backend_that_finds_no_card(worker: Worker, spoken: Path) -> None:
    said = worker("empty", spoken)
    if "built for the CPU alone" not in said["before"]:
        pytest.skip("this ggml has a backend for GPUs")
    why = (
        "ggml's CUDA finds no GPU; its driver may be missing or too old, or the card hidden (CUDA_VISIBLE_DEVICES and "
        "the like)"
    )
    assert said["list"][2].endswith(f"{why}\n")
    assert said["list"][2].startswith("dgemma: no GPU: ")
    assert said["-ngl 3"][0] == 0
    line = f"dgemma: n_gpu_layers asks for a GPU, but everything runs on the CPU: {why}"
    assert said["-ngl 3"][2].splitlines()[0] == line


def test_cards_that_are_too_small(worker: Worker, model_path: Callable[..., Path]) -> None:
    report = worker("small", model_path("short"))
    places = [(layers, head) for layers, head, *_ in report["placed"]]
    assert places[0] == ([["CARD0", "CARD0"]] * 3, "CARD0")
    assert places[-1] == ([["CPU", "CPU"]] * 3, "CPU")
    assert all(fits for *_, fits, _ in report["placed"])
    warned = [warnings for *_, warnings in report["placed"]]
    assert warned[:-1] == [[]] * 3
    assert warned[-1] == ["not even the head fits on a GPU: everything runs on the CPU"]
    assert report["refused"].startswith("RequestError: n_gpu_layers=4 does not fit: it needs 1.")
    assert "fits, and so does n_cpu_moe=" in report["refused"]
