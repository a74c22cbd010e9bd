"""``dgemma inspect`` on made-up headers: what it counts, what it shortens, how it looks at 80 columns."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import dgemma
from dgemma import ModelFileError
from dgemma.cli import app


@dataclass
class FakeTensor:
    name: str
    type: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass
class FakeInfo:
    metadata: dict[str, object]
    tensors: list[FakeTensor]
    version: int = 3
    n_bytes: int = 16_806_812_672
    paths: list[str] = field(default_factory=lambda: ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"])


TENSORS = [
    FakeTensor("token_embd.weight", "q6_K", (2816, 262144), 605_552_640),
    FakeTensor("blk.0.ffn_down_exps.weight", "q5_0", (704, 2816, 128), 174_456_832),
    FakeTensor("blk.1.ffn_down_exps.weight", "q5_0", (704, 2816, 128), 174_456_832),
    FakeTensor("output_norm.weight", "f32", (2816,), 11_264),
]
METADATA: dict[str, object] = {
    "general.architecture": "diffusion-gemma",
    "general.name": "\x1b[31mred\x9b [bold]not bold[/bold]",
    "diffusion-gemma.attention.layer_norm_rms_epsilon": 1e-6,
    "diffusion-gemma.attention.head_count_kv": np.array([8, 8, 2], dtype=np.int32),
    "diffusion-gemma.attention.sliding_window_pattern": [True, True, False],
    "tokenizer.ggml.tokens": [f"t{i}" for i in range(262144)],
    "tokenizer.ggml.scores": np.zeros(262144, np.float32),
    "tokenizer.chat_template": "{{ bos }}\n" * 100,
}
PLAN = {"CPU": {"weights": 16_806_812_672, "kv": 373_293_056, "compute": 310_378_496, "sampler": 268_435_456}}
LAYERS = [SimpleNamespace(device="CPU", experts="CPU")] * 2
MEMORY = {"kv_type": "f16", "devices": PLAN, "layers": [vars(layer) for layer in LAYERS], "head": "CPU", "notes": []}


class FakeCore(ModuleType):
    """Stands in for the native module; remembers what plan it was asked for."""

    plan: dict[str, dict[str, int]] | Exception = PLAN
    asked: tuple[object, ...] = ()
    DeviceRequest = dict

    def read_gguf(self, path: str) -> FakeInfo:
        if path != "model.gguf":
            raise ModelFileError(f"{path}: no such file")
        return FakeInfo(dict(METADATA), list(TENSORS))

    def plan_devices(self, *arguments: object) -> SimpleNamespace:
        self.asked = arguments
        if isinstance(self.plan, Exception):
            raise self.plan
        return SimpleNamespace(memory=self.plan, layers=LAYERS, head="CPU", notes=[])


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    native, core = ModuleType("dgemma._native"), FakeCore("dgemma._core")
    monkeypatch.setattr(native, "core", core, raising=False)
    monkeypatch.setitem(sys.modules, "dgemma._native", native)
    monkeypatch.setitem(dgemma.__dict__, "_native", native)
    monkeypatch.setenv("COLUMNS", "80")
    return core


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["inspect", *arguments])


def report(*arguments: str) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


@pytest.mark.usefixtures("core")
def test_json_counts() -> None:
    shown = report("model.gguf")
    assert shown["files"] == ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"]
    assert (shown["bytes"], shown["gguf_version"]) == (16_806_812_672, 3)
    assert shown["parameters"] == 2816 * 262144 + 2 * 704 * 2816 * 128 + 2816
    assert shown["tensors"] == [
        {"type": "q6_K", "tensors": 1, "parameters": 2816 * 262144, "bytes": 605_552_640},
        {"type": "q5_0", "tensors": 2, "parameters": 2 * 704 * 2816 * 128, "bytes": 348_913_664},
        {"type": "f32", "tensors": 1, "parameters": 2816, "bytes": 11_264},
    ]
    assert shown["memory"] == {"n_ctx": 8192, **MEMORY}


@pytest.mark.usefixtures("core")
def test_json_metadata_keeps_all_but_long_arrays() -> None:
    metadata = report("model.gguf")["metadata"]
    assert list(metadata) == list(METADATA)
    assert metadata["general.name"] == METADATA["general.name"]
    assert metadata["diffusion-gemma.attention.head_count_kv"] == [8, 8, 2]
    assert metadata["tokenizer.ggml.tokens"] == {"length": 262144, "first": [f"t{i}" for i in range(8)]}
    assert metadata["tokenizer.ggml.scores"] == {"length": 262144, "first": [0.0] * 8}
    assert metadata["tokenizer.chat_template"] == METADATA["tokenizer.chat_template"]


def test_plan_alone(core: FakeCore) -> None:
    assert report("model.gguf", "--plan", "--ctx", "262144") == {"memory": {"n_ctx": 262144, **MEMORY}}
    assert core.asked == ("model.gguf", 262144, "f16", 0, {"n_gpu_layers": -1}, None)
    shown = invoke("model.gguf", "--plan").stdout
    assert "Memory for 8,192 tokens of context" in shown
    assert "Metadata" not in shown


@pytest.mark.parametrize(("own", "planned"), [(4096, 4096), (262144, 8192), ("forged", 8192), (-1, 8192)])
def test_the_plan_stays_within_the_model(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch, own: object, planned: int
) -> None:
    monkeypatch.setitem(METADATA, "diffusion-gemma.context_length", own)
    assert report("model.gguf")["memory"]["n_ctx"] == planned
    assert core.asked[:4] == ("model.gguf", planned, "f16", 0)


@pytest.mark.usefixtures("core")
def test_tables_fit_a_terminal() -> None:
    result = invoke("model.gguf")
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "GGUF version 3, 16.8 GB, 1,245,711,104 parameters" in lines
    assert "\x1b" not in result.stdout
    assert "\x9b" not in result.stdout
    words = " ".join(result.stdout.split())
    for expected in (
        "general.architecture diffusion-gemma",
        "diffusion-gemma.attention.layer_norm_rms_epsilon 1e-06",
        r"\x1b[31mred\x9b [bold]not bol…",
        "tokenizer.ggml.tokens 262,144 values: t0, t1, t2",
        "q5_0 2 507,510,784 348.9 MB 5.50",
        "CPU 16.8 GB 373.3 MB 310.4 MB 268.4 MB 17.8 GB",
    ):
        assert expected in words


def test_a_file_that_cannot_be_run_can_be_looked_at(core: FakeCore) -> None:
    core.plan = ModelFileError("model.gguf: general.architecture is 'gemma4', not 'diffusion-gemma'")
    shown = report("model.gguf")
    assert (shown["memory"], shown["memory_error"]) == (None, str(core.plan))
    assert len(shown["tensors"]) == 3
    words = " ".join(invoke("model.gguf").stdout.split())
    assert "No memory plan: model.gguf: general.architecture is 'gemma4', not 'diffusion-gemma'" in words
    result = invoke("model.gguf", "--plan")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"dgemma: {core.plan}\n")


@pytest.mark.usefixtures("core")
def test_bad_files_and_wrong_command_lines() -> None:
    result = invoke("absent.gguf")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "dgemma: absent.gguf: no such file\n")
    assert invoke().exit_code == 2
    for context in ("0", "many", "99999999999"):
        assert invoke("model.gguf", "--ctx", context).exit_code == 2


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_an_output_that_takes_nothing() -> None:
    """A full disk behind stdout is one line."""
    command = [sys.executable, "-c", "from dgemma.cli import main; main()", "convert", "--help"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "dgemma: the output: No space left on device\n")
