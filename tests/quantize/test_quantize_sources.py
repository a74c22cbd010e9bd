"""What goes in and what comes out: checkpoints, GGUF files, split sets; one machinery for all."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from dgemma import Engine, FileError, ModelFileError, RequestError
from dgemma.convert import convert, keys, safetensors_file
from dgemma.quantize import plan, quantize
from dgemma.quantize.quantizer import open_model


def read(path: Path) -> tuple[dict[str, Any], dict[str, gguf.ReaderTensor]]:
    """Metadata with its types, and tensors, by gguf's own reader."""
    reader = gguf.GGUFReader(path)
    return (
        {name: (field.types, field.contents()) for name, field in reader.fields.items()},
        {tensor.name: tensor for tensor in reader.tensors},
    )


def logits(path: Path) -> np.ndarray:
    with Engine(path, n_ctx=64) as engine:
        session = engine.session()
        session.prefill([2, 5, 9])
        return session.denoise(np.arange(16))


# ------------------------------------------------------------------------------------------------ one machinery


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K_M", "Q8_0", "F16"])
def test_a_checkpoint_gives_the_same_file_by_every_way(
    pristine: Path, float_gguf: Path, out: Path, tmp_path: Path, name: str
) -> None:
    quantize(pristine, out, name)
    tensors = {key: (t.tensor_type, t.data.tobytes()) for key, t in read(out)[1].items()}
    convert(pristine, tmp_path / "converted.gguf", name)
    assert (tmp_path / "converted.gguf").read_bytes() == out.read_bytes()
    quantize(float_gguf, tmp_path / "twice.gguf", name)
    metadata, found = read(tmp_path / "twice.gguf")
    assert {key: (t.tensor_type, t.data.tobytes()) for key, t in found.items()} == tensors
    assert list(found) == list(tensors)
    expected = read(out)[0]
    for key in expected:
        if not key.startswith("GGUF."):
            assert metadata[key] == expected[key], key


def test_threads_and_pieces_change_nothing(
    pristine: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(pristine, out, "Q4_K_M", threads=1)
    for threads, piece in ((2, 1 << 20), (7, 1000), (3, 1)):
        monkeypatch.setattr(safetensors_file, "CHUNK_BYTES", piece)
        quantize(pristine, tmp_path / "other.gguf", "Q4_K_M", threads=threads, force=True)
        assert (tmp_path / "other.gguf").read_bytes() == out.read_bytes()


def test_the_plan_is_what_gets_written(pristine: Path, out: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    report = quantize(pristine, out, "q4_0", progress=lambda *call: calls.append(call))
    assert report.plan == plan(pristine, "Q4_0")
    assert (report.paths, report.bytes) == ((out,), out.stat().st_size)
    assert [(t.name, list(t.shape), t.type, t.bytes) for t in report.plan.tensors] == [
        (t.name, t.shape.tolist()[::-1], t.tensor_type.name, t.n_bytes) for t in read(out)[1].values()
    ]
    assert calls[0] == (0, report.plan.bytes, "token_embd.weight")
    assert [call[0] for call in calls] == sorted(call[0] for call in calls)
    assert calls[-1][:2] == (report.plan.bytes, report.plan.bytes)


# ------------------------------------------------------------------------------------------------ GGUF sources


def test_metadata_is_copied_with_its_types(float_gguf: Path, out: Path, tmp_path: Path) -> None:
    """Values of every type, through a file made by gguf's own writer; what speaks of the weights' type is new."""
    writer = gguf.GGUFWriter(tmp_path / "typed.gguf", "diffusion-gemma")
    reader = gguf.GGUFReader(float_gguf)
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture", "general.file_type")):
            item = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], item)
    for type in (
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float32",
        "float64",
        "bool",
    ):
        getattr(writer, f"add_{type}")(f"x.{type}", 1)
    writer.add_array("x.empty_text", ["", "\n", "é"])
    writer.add_key_value("x.floats", [1.5, -2.5], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.FLOAT64)
    writer.add_key_value("x.bytes", [1, 2], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT8)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    quantize(tmp_path / "typed.gguf", out, "Q5_0")
    before, after = read(tmp_path / "typed.gguf")[0], read(out)[0]
    assert after["general.file_type"][1] == gguf.LlamaFileType.MOSTLY_Q5_0
    for values in (before, after):
        for key in ("GGUF.kv_count", "general.file_type"):
            values.pop(key)
    assert after == before


def test_requantising_only_when_asked_for(quantised_gguf: Path, out: Path) -> None:
    with pytest.raises(RequestError, match=r"is quantised already \(Q4_0\), and doing it again loses more"):
        quantize(quantised_gguf, out, "Q5_0")
    assert not out.exists()
    quantize(quantised_gguf, out, "Q5_0", allow_requantize=True)
    assert {t.tensor_type.name for t in read(out)[1].values()} == {"F16", "F32", "Q5_0", "Q8_0"}
    assert np.isfinite(logits(out)).all()


def test_what_has_its_type_already_is_copied(quantised_gguf: Path, out: Path) -> None:
    quantize(quantised_gguf, out, "Q4_0")
    assert {k: t.data.tobytes() for k, t in read(out)[1].items()} == {
        k: t.data.tobytes() for k, t in read(quantised_gguf)[1].items()
    }


def test_tensors_that_are_not_in_the_table_are_copied(float_gguf: Path, out: Path, tmp_path: Path) -> None:
    data = bytearray(float_gguf.read_bytes())
    place = data.index(b"self_cond_up.weight")
    data[place : place + 12] = b"foreign_part"
    (tmp_path / "foreign.gguf").write_bytes(data)
    quantize(tmp_path / "foreign.gguf", out, "Q4_0")
    tensor = read(out)[1]["foreign_part.weight"]
    assert tensor.tensor_type.name == "F32"
    np.testing.assert_array_equal(tensor.data, read(float_gguf)[1]["self_cond_up.weight"].data)


def test_another_architecture_is_refused_by_name(float_gguf: Path, out: Path, tmp_path: Path) -> None:
    data = float_gguf.read_bytes()
    (tmp_path / "other.gguf").write_bytes(data.replace(b"diffusion-gemma", b"fruitflygemma12", 1))
    with pytest.raises(ModelFileError, match=r"general.architecture is 'fruitflygemma12', not 'diffusion-gemma'"):
        quantize(tmp_path / "other.gguf", out, "Q4_0")
    (tmp_path / "cut.gguf").write_bytes(data[:-5000])
    with pytest.raises(ModelFileError, match=r"cut\.gguf: .* beyond the end of the file"):
        quantize(tmp_path / "cut.gguf", out, "Q4_0")
    (tmp_path / "text.gguf").write_text("not a model at all, but long enough to be looked at")
    with pytest.raises(ModelFileError, match="is not a GGUF file"):
        quantize(tmp_path / "text.gguf", out, "Q4_0")
    assert not out.exists()


@pytest.mark.parametrize("key", ["block_count", "expert_count", "attention.head_count"])
def test_senseless_sizes_are_refused(float_gguf: Path, out: Path, tmp_path: Path, key: str) -> None:
    name = f"diffusion-gemma.{key}".encode()
    data = bytearray(float_gguf.read_bytes())
    place = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    data[place + 4 : place + 8] = bytes(4)
    (tmp_path / "forged.gguf").write_bytes(data)
    with pytest.raises(ModelFileError, match=f"diffusion-gemma.{key} is 0, but must be at least 1"):
        quantize(tmp_path / "forged.gguf", out, "Q4_0")


def test_a_value_that_is_no_number_names_tensor_and_place(float_gguf: Path, out: Path, tmp_path: Path) -> None:
    data = bytearray(float_gguf.read_bytes())
    tensor = next(w for w in open_model(float_gguf).weights if w.name == "blk.1.ffn_gate_up_exps.weight")
    at = (2 * 40 + 7) * 64 + 33  # matrix 2, row 7, column 33 of [3, 40, 64]
    data[tensor.source.begin + 4 * at : tensor.source.begin + 4 * at + 4] = struct.pack("<f", np.nan)
    (tmp_path / "nan.gguf").write_bytes(data)
    with pytest.raises(
        ModelFileError, match=r"nan\.gguf: tensor 'blk\.1\.ffn_gate_up_exps\.weight': the value at \[2, 7, 33\] is inf"
    ):
        quantize(tmp_path / "nan.gguf", out, "Q4_0")
    assert list(out.parent.iterdir()) == []


# ------------------------------------------------------------------------------------------------ split sets


@pytest.mark.parametrize("limit", [100_000, 40_000, 1])
def test_a_split_set_loads_as_one_model(pristine: Path, out: Path, tmp_path: Path, limit: int) -> None:
    report = quantize(pristine, tmp_path / "whole.gguf", "Q4_0")
    split = quantize(pristine, out, "Q4_0", split_bytes=limit)
    count = len(split.paths)
    assert [path.name for path in split.paths] == [f"model-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]
    assert sorted(out.parent.iterdir()) == sorted(split.paths)
    assert split.bytes == sum(path.stat().st_size for path in split.paths)
    assert split.plan == report.plan
    sizes = [sum(tensor.n_bytes for tensor in read(path)[1].values()) for path in split.paths]
    assert count > 1
    assert limit == 1 or max(sizes) <= limit
    assert limit > 1 or count == len(report.plan.tensors)
    if count < 50:
        np.testing.assert_array_equal(logits(split.path), logits(report.path))
        # … and as a source, whichever of its files is named
        quantize(split.paths[-1], tmp_path / "joined.gguf", "Q4_0")
        assert {k: t.data.tobytes() for k, t in read(tmp_path / "joined.gguf")[1].items()} == {
            k: t.data.tobytes() for k, t in read(report.path)[1].items()
        }
        assert "split.count" not in read(tmp_path / "joined.gguf")[0]


def test_one_file_where_one_is_enough(pristine: Path, out: Path) -> None:
    assert quantize(pristine, out, "Q4_0", split_bytes=10**9).paths == (out,)


def test_files_of_a_set_are_not_overwritten_unasked(pristine: Path, out: Path) -> None:
    paths = quantize(pristine, out, "Q4_0", split_bytes=100_000).paths
    with pytest.raises(FileError, match=r"model-00001-of-0000\d\.gguf: exists already"):
        quantize(pristine, out, "Q4_0", split_bytes=100_000)
    assert quantize(pristine, out, "Q4_0", split_bytes=100_000, force=True).paths == paths
    with pytest.raises(RequestError, match=r"the name of a split set must end in \.gguf"):
        quantize(pristine, out.with_suffix(".bin"), "Q4_0", split_bytes=100_000)


def test_header_bytes() -> None:
    """The smallest file there is, byte by byte."""
    entry = keys.number("k", 7)
    assert entry == keys.Keys(struct.pack("<Q", 1) + b"k" + struct.pack("<II", 4, 7), 1)
    data = keys.header(entry, [])
    assert data == b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry.data + bytes(-(24 + len(entry.data)) % 32)
