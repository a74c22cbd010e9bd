"""The maker of random checkpoints: the same files everywhere, and in the form that others read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from safetensors import deserialize, safe_open

import random_checkpoint
import random_weights
from random_checkpoint import CheckpointConfig, write_checkpoint

CONFIG = CheckpointConfig()


def bytes_by_name(folder: Path) -> dict[str, bytes]:
    shards = sorted(folder.glob("*.safetensors"))
    return {name: bytes(entry["data"]) for shard in shards for name, entry in deserialize(shard.read_bytes())}


def test_the_values_are_fixed() -> None:
    """Fixtures do not store weights, so these may not change: not with numpy, not with the machine."""
    tensor = random_weights.RandomTensor("model.decoder.norm.weight", (4,), 1.0, 0.15)
    (values,) = random_weights.values(tensor, seed=0)
    assert [value.hex() for value in values.tolist()] == [
        "0x1.e0d86c0000000p-1",
        "0x1.2efb880000000p+0",
        "0x1.c0d4040000000p-1",
        "0x1.3586c60000000p+0",
    ]


def test_values_are_nearly_normal() -> None:
    tensor = random_weights.RandomTensor("any", (3, 1 << 20), 0.5, 2.0)
    x = np.concatenate(list(random_weights.values(tensor, seed=1)))
    assert x.size == 3 << 20
    assert x.mean() == pytest.approx(0.5, abs=0.01)
    assert x.std() == pytest.approx(2.0, rel=0.01)
    assert len(np.unique(x[:1000])) > 990


def test_a_tensor_does_not_depend_on_the_others(tmp_path) -> None:
    small = bytes_by_name(write_checkpoint(tmp_path / "a", CONFIG))
    large = bytes_by_name(write_checkpoint(tmp_path / "b", replace(CONFIG, layers=4, full_every=4), vision=False))
    shared = "model.decoder.layers.0.mlp.gate_proj.weight"
    assert small[shared] == large[shared]
    assert any("vision_tower" in name for name in small)
    assert not any("vision" in name for name in large)
    assert small != bytes_by_name(write_checkpoint(tmp_path / "c", CONFIG, seed=1))


def test_shards_hold_what_one_file_holds(tmp_path) -> None:
    one, three = (write_checkpoint(tmp_path / str(n), CONFIG, shards=n, dtype="bfloat16") for n in (1, 3))
    assert bytes_by_name(one) == bytes_by_name(three)
    index = json.loads((three / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(len(data) for data in bytes_by_name(one).values())
    for name, shard in index["weight_map"].items():
        with safe_open(three / shard, "np") as file:
            assert name in set(file.keys())


def test_bfloat16_rounds_to_nearest_even() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0xBF80FFFF], dtype=np.uint32)
    assert random_weights.as_bfloat16(bits.view(np.float32)).tolist() == [0x3F80, 0x3F82, 0x3F81, 0xBF81]


def test_tokenizer_reads_back_what_it_wrote(tmp_path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(write_checkpoint(tmp_path, CONFIG) / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == CONFIG.vocab
    text = "The canvas,  naïve 日本\n<|turn>user"
    ids = tokenizer.encode(text).ids
    assert ids[0] == 2
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<bos>" + text
    assert {105, 107} < set(ids)
    assert tokenizer.token_to_id("<turn|>") == 106
    assert tokenizer.token_to_id("<0x00>") == 238
    assert len(tokenizer.encode("The canvas").ids) < len("The canvas")


def test_a_vocabulary_too_small_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="need 512"):
        write_checkpoint(tmp_path, replace(CONFIG, vocab=300))


def test_command_line(tmp_path, capsys) -> None:
    random_checkpoint.main([str(tmp_path / "out"), "--layers", "2", "--vocab", "600", "--dtype", "bfloat16"])
    text = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert (text["num_hidden_layers"], text["vocab_size"]) == (2, 600)
    assert text["layer_types"] == ["sliding_attention", "full_attention"]
    assert "MB" in capsys.readouterr().out
