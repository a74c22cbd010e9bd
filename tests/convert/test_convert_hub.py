"""Hub repositories, with the hub played by a local folder."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from checkpoints import SMALL, leftovers, read_gguf, write_checkpoint

from dgemma import CheckpointError
from dgemma.convert import convert, plan
from dgemma.convert.safetensors_file import read_header

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Copies what is asked for from ``source`` into a cache like the hub library's, and remembers the questions."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source = source
        self.snapshot = cache / "models--owner--diffusion-tiny" / "snapshots" / COMMIT
        self.revisions: list[str | None] = []

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert repo_id == "owner/diffusion-tiny"
        self.revisions.append(revision)
        self.snapshot.mkdir(parents=True, exist_ok=True)
        for file in self.source.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, self.snapshot)
        return str(self.snapshot)

    def parse_safetensors_file_metadata(self, repo_id: str, filename: str, *, revision: str) -> Any:
        self.revisions.append(revision)
        header = read_header(self.source / filename).items()
        return SimpleNamespace(
            tensors={
                name: SimpleNamespace(dtype=t.dtype, shape=list(t.shape), data_offsets=(t.begin, t.begin + t.bytes))
                for name, t in header
            }
        )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    source = write_checkpoint(tmp_path / "source", SMALL, shards=2)
    (source / "pytorch_model.bin").write_bytes(b"not wanted")
    (source / "model.gguf").write_bytes(b"not wanted")
    hub = Hub(source, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


def test_converts_what_it_fetches(hub: Hub, out: Path) -> None:
    convert("owner/diffusion-tiny", out, "f16", revision="v2")
    fetched = {path.name for path in hub.snapshot.iterdir()}
    assert fetched == {path.name for path in hub.source.iterdir()} - {"pytorch_model.bin", "model.gguf"}
    assert hub.revisions == ["v2", COMMIT]  # the weights come from the commit that the config came from
    metadata, tensors = read_gguf(out)
    assert metadata["general.name"] == "Diffusion Tiny"
    assert len(tensors) == 75


def test_the_plan_fetches_no_weights(hub: Hub) -> None:
    planned = plan("owner/diffusion-tiny", "q8_0")
    assert not any(path.suffix == ".safetensors" for path in hub.snapshot.iterdir())
    local = plan(hub.source, "q8_0")
    assert [(t.name, t.shape, t.type, t.bytes) for t in planned.tensors] == [
        (t.name, t.shape, t.type, t.bytes) for t in local.tensors
    ]


def test_a_shard_that_the_hub_lacks(hub: Hub, out: Path) -> None:
    (hub.source / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors: no such file"):
        convert("owner/diffusion-tiny", out)
    assert leftovers(out.parent) == []


def test_the_hub_refuses(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError("401 Client Error. (Request ID: 1)\n\nRepository Not Found for url: …\nPlease log in.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError) as error:
        convert("owner/absent", out)
    assert str(error.value).startswith("owner/absent: no such folder here, and the hub's answer was: 401 Client Error.")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a", "a/b/c", "../b", "/a/b", "a/..", "", "a b/c", "./a"])
def test_what_is_no_repository(name: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(CheckpointError):
        convert(name, out)
