"""Damaged, foreign and hostile weights: one sentence that names file, tensor and cause, and nothing left behind."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import INDEX, SMALL, WEIGHTS, Values, edit_json, edit_weights, forge, leftovers, write_checkpoint

from dgemma import CheckpointError
from dgemma.convert import convert, plan
from dgemma.convert.safetensors_file import read_header

EMBEDDINGS, NORM = "model.decoder.embed_tokens.weight", "model.decoder.norm.weight"
SHARD = "model-00002-of-00003.safetensors"


def refused(folder: Path, out: Path, *parts: str, type: str = "f32") -> None:
    """The conversion must be refused in one sentence with all these parts, and leave nothing."""
    with pytest.raises(CheckpointError) as error:
        convert(folder, out, type)
    message = str(error.value)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message
    assert leftovers(out.parent) == []


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", SMALL, shards=3)


def test_missing_shard(sharded: Path, out: Path) -> None:
    (sharded / SHARD).unlink()
    refused(sharded, out, str(sharded / SHARD), "no such file", "incomplete download")


def test_no_weights_at_all(checkpoint: Path, out: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    refused(checkpoint, out, str(checkpoint / WEIGHTS), "no such file")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_shard(sharded: Path, out: Path, keep: int) -> None:
    """Cut within the length, within the header, and one byte before the end."""
    (sharded / SHARD).write_bytes((sharded / SHARD).read_bytes()[:keep])
    refused(sharded, out, str(sharded / SHARD), "has only", "incomplete download")


def test_shard_that_shrinks_while_it_is_read(sharded: Path, out: Path) -> None:
    def cut(done: int, total: int, name: str) -> None:
        (sharded / SHARD).write_bytes(b"")

    with pytest.raises(CheckpointError, match=r"ended while it was read"):
        convert(sharded, out, "f32", progress=cut)
    assert leftovers(out.parent) == []


def test_index_names_a_file_that_is_absent(sharded: Path, out: Path) -> None:
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: "model-4.safetensors"}))
    refused(sharded, out, "model-4.safetensors", "no such file")


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "a\\b.safetensors", 7]
)
def test_index_names_a_file_outside_the_folder(sharded: Path, out: Path, file: object) -> None:
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: file}))
    refused(sharded, out, INDEX, f"weight_map.{NORM}", repr(file))


def test_index_and_shards_disagree(sharded: Path, out: Path) -> None:
    edit_json(sharded / INDEX, lambda index: index["weight_map"].pop(NORM))
    refused(sharded, out, f"holds tensor {NORM!r}", INDEX)
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: SHARD, "extra": SHARD}))
    refused(sharded, out, INDEX)


def test_empty_index(sharded: Path, out: Path) -> None:
    edit_json(sharded / INDEX, lambda index: index.update(weight_map={}))
    refused(sharded, out, INDEX, "weight_map is empty")


SPOILED: list[tuple[Callable[[Values], object], tuple[str, ...]]] = [
    (lambda v: v.update({NORM: np.ones(33, np.float32)}), (WEIGHTS, NORM, "[33]", "[32]", "config.json")),
    (lambda v: v.update({NORM: np.ones((1, 32), np.float32)}), (WEIGHTS, NORM, "[1, 32]", "[32]")),
    (lambda v: v.update({NORM: np.ones(32, np.float64)}), (WEIGHTS, NORM, "F64", "F32, F16, BF16")),
    (lambda v: v.update({NORM: np.ones(32, np.int8)}), (WEIGHTS, NORM, "I8", "already quantised")),
    (lambda v: v.update({"model.decoder.extra": np.ones(1)}), (WEIGHTS, "model.decoder.extra", "unknown")),
    (lambda v: v.update({"model.layers.0.q": np.ones(1), "z": np.ones(1)}), ("model.layers.0.q", "and 1 more")),
    (lambda v: v.update({"model.encoder.language_model.x": np.ones(1)}), ("language_model.x", "unknown")),
    (lambda v: v.update({"lm_head.weight": np.ones((2, 2))}), ("lm_head.weight", "[2, 2]", EMBEDDINGS, "tied")),
    (lambda v: v.pop(NORM), (NORM, "missing", "incomplete checkpoint")),
    (lambda v: v.pop("model.encoder.language_model.layers.1.layer_scalar"), ("layers.1.layer_scalar", "missing")),
]


@pytest.mark.parametrize(("spoil", "parts"), SPOILED)
def test_wrong_tensors(checkpoint: Path, out: Path, spoil: Callable[[Values], object], parts: tuple[str, ...]) -> None:
    edit_weights(checkpoint, spoil)
    refused(checkpoint, out, *parts)
    with pytest.raises(CheckpointError):  # the plan sees it too
        plan(checkpoint)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_value_that_is_no_number(checkpoint: Path, out: Path, value: float, dtype: type[np.floating]) -> None:
    def put(values: Values) -> None:
        values[EMBEDDINGS] = values[EMBEDDINGS].astype(dtype)
        values[EMBEDDINGS][-1, -1] = value

    edit_weights(checkpoint, put)
    for target in ("f32", "q8_0"):
        refused(checkpoint, out, WEIGHTS, EMBEDDINGS, "infinite or not a number", type=target)


def test_a_bfloat16_value_that_is_no_number(tmp_path: Path, out: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", SMALL, dtype="bfloat16")
    tensor = read_header(folder / WEIGHTS)[EMBEDDINGS]
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[tensor.begin : tensor.begin + 2] = struct.pack("<H", 0xFF80)
    (folder / WEIGHTS).write_bytes(data)
    for target in ("bf16", "f32"):
        refused(folder, out, WEIGHTS, EMBEDDINGS, "infinite or not a number", type=target)


@pytest.mark.parametrize(
    ("value", "target", "limit"),
    [(65520.0, "f16", "F16 holds"), (-1e6, "f16", "F16 holds"), (3.4e38, "bf16", "BF16 holds"), (1e7, "q8_0", "Q8_0")],
)
def test_a_value_beyond_the_target_type(checkpoint: Path, out: Path, value: float, target: str, limit: str) -> None:
    edit_weights(checkpoint, lambda values: values[EMBEDDINGS].__setitem__((5, 5), value))
    refused(checkpoint, out, WEIGHTS, EMBEDDINGS, limit, f"{abs(value):.7g}", type=target)


def test_the_largest_values_that_fit_do_convert(checkpoint: Path, out: Path) -> None:
    edit_weights(checkpoint, lambda values: values[EMBEDDINGS].__setitem__((5, 5), 65519.0))
    for target in ("f16", "bf16", "q8_0"):
        convert(checkpoint, out, target, force=True)


def entry(begin: int, end: int, shape: object = None, dtype: object = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


HOSTILE: list[tuple[object, bytes, str]] = [
    ({"a": entry(0, 4), "b": entry(2, 6)}, b"123456", "overlaps 'a'"),
    ({"a": entry(0, 2), "b": entry(4, 6)}, b"123456", "leaves a hole after 'a'"),
    ({"a": entry(2, 6)}, b"123456", "leaves a hole after the header"),
    ({"a": entry(0, 4)}, b"123456", "2 bytes follow the last tensor"),
    ({"a": entry(0, 9)}, b"123456", "perhaps an incomplete download"),
    ({"a": entry(0, 2**63, [2**63])}, b"123456", "perhaps an incomplete download"),
    ({"a": entry(0, 4, [2])}, b"1234", "span 4 bytes, but U8 of shape [2] takes 2"),
    ({"a": entry(0, 4, [2**40, 2**40])}, b"1234", "span 4 bytes"),
    ({"a": {**entry(0, 4), "data_offsets": [4, 0]}}, b"1234", "span -4 bytes"),
    ({"a": entry(0, 4, [-2, -2])}, b"1234", "not a list of sizes"),
    ({"a": entry(0, 4, [4.0])}, b"1234", "not a list of sizes"),
    ({"a": entry(0, 4, [True, 4])}, b"1234", "not a list of sizes"),
    ({"a": entry(0, 4, "4")}, b"1234", "not a list of sizes"),
    ({"a": entry(0, 4, dtype="Q4")}, b"1234", "unknown dtype 'Q4'"),
    ({"a": entry(0, 4, dtype=["U8"])}, b"1234", "unknown dtype ['U8']"),
    ({"a": {**entry(0, 4), "data_offsets": [0]}}, b"1234", "not two byte positions"),
    ({"a": {**entry(0, 4), "data_offsets": None}}, b"1234", "not two byte positions"),
    ({"a": 5}, b"1234", "not an object"),
    ([], b"", "not a JSON object"),
    (b'{"a": ', b"", "not valid JSON"),
    (b"\xff\xfe", b"", "not valid JSON"),
    (b"[" * 100_000, b"", "not valid JSON"),
    (b'{"a": %s, "a": %s}' % ((json.dumps(entry(0, 4)).encode(),) * 2), b"1234", "a name appears twice"),
]


@pytest.mark.parametrize(("header", "data", "cause"), HOSTILE)
def test_hostile_header(tmp_path: Path, header: object, data: bytes, cause: str) -> None:
    path = forge(tmp_path / WEIGHTS, header, data)
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    assert str(error.value).startswith(f"{path}: ")
    assert cause in str(error.value)


@pytest.mark.parametrize("length", [10**8 + 1, 2**63, 2**64 - 1])
def test_absurd_header_length(checkpoint: Path, out: Path, length: int) -> None:
    (checkpoint / WEIGHTS).write_bytes(length.to_bytes(8, "little") + b"{}")
    refused(checkpoint, out, WEIGHTS, str(length), "more than any has")


def test_empty_tensors_and_metadata_are_fine(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "a": entry(0, 0), "b": entry(0, 4), "c": entry(4, 4)}
    assert [t.bytes for t in read_header(forge(tmp_path / WEIGHTS, header, b"1234")).values()] == [0, 4, 0]


def test_weights_in_another_format(checkpoint: Path, out: Path) -> None:
    for magic in (b"GGUF", b"PK\x03\x04"):
        (checkpoint / WEIGHTS).write_bytes(magic * 100)
        refused(checkpoint, out, WEIGHTS, "not a safetensors file")
