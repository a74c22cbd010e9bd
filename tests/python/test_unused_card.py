"""A user whose NVIDIA card does nothing learns of it, once; nobody else hears of cards. The driver is a script here."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import dgemma.devices
from dgemma import Engine, plan_devices
from dgemma._core import why_no_gpu
from dgemma.cli import app
from dgemma.convert import convert
from random_checkpoint import CheckpointConfig, write_checkpoint

CARD = "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-5c1f)\nGPU 1: NVIDIA L4 (UUID: GPU-77aa)"
HINT = f"the NVIDIA GeForce RTX 4090 is not used: {why_no_gpu()}; n_gpu_layers=0 (-ngl 0) means the CPU"
Driver = Callable[[str], None]

pytestmark = pytest.mark.skipif(not why_no_gpu(), reason="this ggml has a GPU, which is used")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    convert(write_checkpoint(folder / "checkpoint", CheckpointConfig()), folder / "m.gguf", type="f32")
    return folder / "m.gguf"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """``driver(script)``: what nvidia-smi does; before the call there is none."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(script: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        dgemma.devices._nvidia_card.cache_clear()

    dgemma.devices._nvidia_card.cache_clear()
    yield install
    dgemma.devices._nvidia_card.cache_clear()


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def warned(model: Path, **request: int) -> list[str]:
    """What an engine warns of, whatever pytest is told to ignore."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Engine(model, n_ctx=64, **request).close()
    return [str(warning.message) for warning in caught]


def test_an_engine_says_so(driver: Driver, model: Path) -> None:
    driver(f'[ "$1" = -L ] && echo "{CARD}"')
    assert warned(model) == [HINT]
    assert warned(model, n_gpu_layers=0) == []  # the CPU is meant
    asked = "n_gpu_layers asks for a GPU, but everything runs on the CPU"
    assert warned(model, n_gpu_layers=3) == [f"{asked}: {why_no_gpu()}"]


@pytest.mark.parametrize(
    "script",
    [
        None,
        'echo "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver"; exit 9',
        'echo "No devices were found"',
        ":",
        "kill -9 $$",
        "/bin/sleep 20",
    ],
)
def test_nobody_else_hears_of_it(
    driver: Driver, script: str | None, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setattr(dgemma.devices, "_DRIVER_SECONDS", 0.2)
    if script is not None:
        driver(script)
    assert warned(model) == []
    assert run("run", "--list-devices").stderr == f"dgemma: no GPU: {why_no_gpu()}\n"
    assert run("inspect", str(model), "--plan").stderr == ""


def test_the_command_line_says_so_once(driver: Driver, model: Path) -> None:
    driver(f'echo "{CARD}"')
    line = f"dgemma: {HINT}\n"
    assert run("run", "-m", str(model), "-p", "hello", "-n", "1").stderr.count(line) == 1
    assert run("run", "-m", str(model), "-p", "hello", "-n", "1", "-ngl", "0").stderr.count("RTX") == 0
    assert run("inspect", str(model), "--plan").stderr == line
    planned = run("inspect", str(model), "--plan", "--json")
    assert (planned.stderr, json.loads(planned.stdout)["memory"]["notes"]) == (line, [])
    assert run("inspect", str(model), "--plan", "-ngl", "0").stderr == ""
    assert run("inspect", str(model), "--plan", "--device-memory", "24G").stderr == ""
    assert run("run", "--list-devices").stderr == (
        f"dgemma: no GPU: the NVIDIA GeForce RTX 4090 is not used: {why_no_gpu()}\n"
    )


def test_planning_is_silent(driver: Driver, model: Path) -> None:
    driver(f'echo "{CARD}"')
    assert plan_devices(model).notes == []
