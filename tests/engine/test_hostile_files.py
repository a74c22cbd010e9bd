"""Files that lie: whatever a GGUF holds, it loads or is refused in one sentence, and the process lives.

Every test here forges one thing about the header or the metadata of a small real model; tensors and split sets are in
test_hostile_tensors.py, and what runs in a process of its own, because it could end one, in test_hostile_runs.py.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from forge import BOOL, F32, I32, STRING, U32, U64, Forged
from refusal import Refused, load, refusal

from dgemma import Engine, ModelFileError, Tokenizer
from dgemma._native import core

ARCH = "diffusion-gemma."

INTEGERS = [
    ARCH + "context_length",
    ARCH + "embedding_length",
    ARCH + "block_count",
    ARCH + "feed_forward_length",
    ARCH + "expert_feed_forward_length",
    ARCH + "expert_count",
    ARCH + "expert_used_count",
    ARCH + "attention.head_count",
    ARCH + "attention.key_length",
    ARCH + "attention.value_length",
    ARCH + "attention.key_length_swa",
    ARCH + "attention.value_length_swa",
    ARCH + "attention.sliding_window",
    ARCH + "rope.dimension_count",
    ARCH + "rope.dimension_count_swa",
    "diffusion.canvas_length",
]
NUMBERS = [
    ARCH + "attention.layer_norm_rms_epsilon",
    ARCH + "rope.freq_base",
    ARCH + "rope.freq_base_swa",
    ARCH + "final_logit_softcapping",
]
ARRAYS = [ARCH + "attention.head_count_kv", ARCH + "attention.sliding_window_pattern"]
REQUIRED = ["general.architecture", *INTEGERS, *NUMBERS, *ARRAYS]
SAMPLER_INTEGERS = ["diffusion.eb_max_steps", "diffusion.eb_stability_threshold"]
SAMPLER_NUMBERS = [
    "diffusion.eb_t_max",
    "diffusion.eb_t_min",
    "diffusion.eb_entropy_bound",
    "diffusion.eb_confidence_threshold",
]
OPTIONAL = [*SAMPLER_INTEGERS, *SAMPLER_NUMBERS, "diffusion.eos_token_ids", "general.file_type", "general.name"]
TOKENIZER = [
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
]


def test_the_forger_tells_the_truth_when_it_is_not_asked_to_lie(genuine: Forged, tiny: Path) -> None:
    assert genuine.to_bytes() == tiny.read_bytes()


# ------------------------------------------------------------------------------------------------ not a file


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.gguf")
    assert "is not a file" in refusal(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "is not a file" in refusal(tmp_path / "pipe")


def test_names_that_are_not_utf8(tmp_path: Path, genuine: Forged) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\n.gguf"
    with pytest.raises(ModelFileError, match=r"\\n\.gguf: cannot be opened: No such file") as caught:
        load(name)
    assert str(caught.value).isprintable()
    Path(os.fsdecode(name)).write_bytes(genuine.to_bytes())
    load(name)
    assert core.read_gguf(name).paths == [os.fsdecode(name)]


@pytest.mark.parametrize("contents", [b"GG", b"PK\3\4" * 100, b"GGUF", b"{}" * 50, bytes(100), b"\x1b[2J\n" * 10])
def test_what_is_no_gguf(refused: Refused, contents: bytes) -> None:
    assert "is not a GGUF file" in refused(contents)


def test_an_empty_file(refused: Refused) -> None:
    assert "is empty; perhaps an interrupted download" in refused(b"")


# ------------------------------------------------------------------------------------------------ the header


@pytest.mark.parametrize("version", [0, 1, 4, 99, 0x03000000])
def test_versions_and_byte_orders(refused: Refused, forged: Forged, version: int) -> None:
    forged.version = version
    message = refused(forged)
    assert "the GGUF header cannot be read" in message
    assert "version" in message or "v1" in message


def test_version_2_has_the_same_layout(forged: Forged, tmp_path: Path) -> None:
    forged.version = 2
    load(forged.write(tmp_path / "two.gguf"))


@pytest.mark.parametrize("count", [100, 2**31 - 1, 2**40, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("which", ["tensors", "metadata"])
def test_absurd_counts(refused: Refused, forged: Forged, count: int, which: str) -> None:
    forged.counts = (count, None) if which == "tensors" else (None, count)
    assert "the GGUF header cannot be read" in refused(forged)


def test_truncation_anywhere(refused: Refused, genuine: Forged) -> None:
    header, whole = genuine.header(), genuine.to_bytes()
    for size in [24, 25, 100, len(header) // 3, len(header) - 1]:  # in the metadata, in the tensors' descriptions
        assert "the GGUF header cannot be read" in refused(whole[:size])
    for size in [len(header), len(header) + 40, len(whole) // 2, len(whole) - 32]:  # in the data
        message = refused(whole[:size])
        assert "ends beyond the end of the file" in message or "the GGUF header cannot be read" in message
        assert "interrupted" in message or "cut off" in message


@pytest.mark.parametrize("length", [10**6, 2**31, 2**40, 2**63 - 1, 2**64 - 1])
def test_absurd_lengths(refused: Refused, forged: Forged, length: int) -> None:
    for key in ("general.name", "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "diffusion.eos_token_ids"):
        changed = forged.copy()
        value = bytearray(changed.metadata[key.encode()])
        at = 4 if changed.type_of(key) == STRING else 8
        value[at : at + 8] = struct.pack("<Q", length)
        changed.metadata[key.encode()] = bytes(value)
        assert "the GGUF header cannot be read" in refused(changed)


def test_repeated_keys_and_tensors(refused: Refused, forged: Forged) -> None:
    twice = forged.copy()
    twice.repeated = [b"general.name"]
    assert "duplicate key 'general.name'" in refused(twice)
    forged.tensors.append(forged.tensor("output_norm.weight"))
    assert "duplicate tensor name 'output_norm.weight'" in refused(forged)


def test_strings_that_are_not_utf8(forged: Forged, tmp_path: Path) -> None:
    """They are read with replacement characters: nothing but their spelling is lost."""
    forged.set("general.name", STRING, b"\xff\xfe model \xed\xa0\x80")
    forged.metadata[b"odd\xffkey"] = forged.metadata[b"general.name"]
    forged.tensors[-1].name += b"\xff"  # an odd name beside the real one's absence would be refused
    spare = forged.copy().tensors[0]
    spare.name = b"\xfe spare"
    path = forged.write(tmp_path / "odd.gguf")
    assert core.read_gguf(path).tensors[-1].name.endswith("\ufffd")
    forged.tensors[-1].name = forged.tensors[-1].name[:-1]
    forged.tensors.append(spare)
    path = forged.write(path)
    load(path)
    assert Engine(path).info.name == "\ufffd\ufffd model \ufffd\ufffd\ufffd"
    assert core.read_gguf(path).metadata["odd\ufffdkey"] == "\ufffd\ufffd model \ufffd\ufffd\ufffd"


def test_tokens_that_are_not_utf8(forged: Forged, tmp_path: Path) -> None:
    tokens = core.read_gguf(forged.write(tmp_path / "a.gguf")).metadata["tokenizer.ggml.tokens"]
    spelled: list[Any] = [token.encode() for token in tokens]
    spelled[7] = b"\xff\xff"
    forged.set_array("tokenizer.ggml.tokens", STRING, spelled)
    path = forged.write(tmp_path / "odd.gguf")
    load(path)
    assert Tokenizer.from_gguf(path).decode([7]) == "\ufffd\ufffd"


# ------------------------------------------------------------------------------------------------ metadata


@pytest.mark.parametrize("name", ["llama", "", "gemma4", "diffusion-gemma2", b"\xff\n\x1b[2J", "x" * 10_000])
def test_another_architecture(refused: Refused, forged: Forged, name: str | bytes) -> None:
    forged.set("general.architecture", STRING, name)
    message = refused(forged)
    assert message.startswith("general.architecture is ")
    assert 'dgemma runs "diffusion-gemma" models only' in message


@pytest.mark.parametrize("key", [*REQUIRED, *TOKENIZER])
def test_missing_keys(refused: Refused, forged: Forged, key: str) -> None:
    forged.remove(key)
    message = refused(forged)
    assert f"{key} is missing; " in message


@pytest.mark.parametrize("key", [*REQUIRED, *OPTIONAL, *TOKENIZER])
def test_values_of_the_wrong_type(refused: Refused, forged: Forged, key: str) -> None:
    wrong: list[tuple[int, Any]] = [(BOOL, True)]
    if forged.type_of(key) != STRING:
        wrong.append((STRING, "7"))
    if key not in NUMBERS and key not in SAMPLER_NUMBERS:
        wrong.append((F32, 7.0))
    for type, value in wrong:
        changed = forged.copy()
        changed.set(key, type, value)
        assert key in refused(changed)
    for type, value in ((U32, 7), (F32, 1.0), (STRING, "7"), (BOOL, True)):
        if key in ARRAYS or key in ("diffusion.eos_token_ids", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"):
            continue
        changed = forged.copy()
        changed.set_array(key, type, [value] * 3)
        assert key in refused(changed)


@pytest.mark.parametrize("key", INTEGERS)
def test_integers_out_of_range(refused: Refused, forged: Forged, key: str) -> None:
    for type, value in ((U32, 0), (I32, -1), (U32, 2**31), (U32, 2**32 - 1), (U64, 2**63 - 1), (U64, 2**64 - 1)):
        changed = forged.copy()
        changed.set(key, type, value)
        message = refused(changed)
        assert f"metadata key {key} is " in message
        assert "; it must be between " in message


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_out_of_range(refused: Refused, forged: Forged, key: str) -> None:
    for value in (0.0, -1.0, 3e38, float("inf"), float("-inf"), float("nan")):
        changed = forged.copy()
        changed.set(key, F32, value)
        assert f"metadata key {key} is " in refused(changed)


@pytest.mark.parametrize("key", [*SAMPLER_INTEGERS, *SAMPLER_NUMBERS])
def test_sampler_values_out_of_range(refused: Refused, forged: Forged, key: str) -> None:
    bad: list[tuple[int, Any]] = [(F32, -1.0), (F32, float("inf")), (F32, float("nan"))]
    for type, value in [(I32, -1), (U64, 2**64 - 1), (U32, 2**31)] if key in SAMPLER_INTEGERS else bad:
        changed = forged.copy()
        changed.set(key, type, value)
        assert "diffusion.eb_" in refused(changed)


@pytest.mark.parametrize("key", ARRAYS)
@pytest.mark.parametrize("length", [0, 1, 2, 4, 1000])
def test_arrays_of_another_length(refused: Refused, forged: Forged, key: str, length: int) -> None:
    forged.set_array(key, BOOL if "pattern" in key else I32, [1] * length)
    assert f"{key} holds {length} values for 3 layers" in refused(forged)


def test_heads_that_do_not_fit(refused: Refused, forged: Forged) -> None:
    for key, value, words in (
        ("attention.key_length", 33, "be even"),
        ("attention.value_length", 16, "be equal to attention.key_length"),
        ("rope.dimension_count_swa", 5, "be even"),
        ("attention.head_count_kv", 3, "divide the 4 attention heads"),
        ("expert_used_count", 9, "be between 1 and 8"),
        ("context_length", 16, "be between 17 and"),
    ):
        changed = forged.copy()
        changed.set(ARCH + key, U32, value)
        message = refused(changed)
        assert f"metadata key {ARCH + key} is {value}" in message
        assert f"must {words}" in message


def test_end_tokens_outside_the_vocabulary(refused: Refused, forged: Forged) -> None:
    for ids in ([512], [-1], [1, 2**31 - 1]):
        changed = forged.copy()
        changed.set_array("diffusion.eos_token_ids", I32, ids)
        assert "diffusion.eos_token_ids holds " in refused(changed)
    forged.remove("diffusion.eos_token_ids")  # as in files of other converters
    for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"):
        changed = forged.copy()
        changed.set(key, U32, 512)
        assert f"{key} is 512" in refused(changed)


def test_a_tokenizer_of_another_model(refused: Refused, forged: Forged) -> None:
    for n in (511, 513):
        forged.set_array("tokenizer.ggml.tokens", STRING, [f"t{i}" for i in range(n)])
        assert f"tokenizer.ggml.tokens holds {n} tokens, but token_embd.weight has 512 rows" in refused(forged)
