"""The tokenizer against hand-made ids, a slow obvious twin, and the 46 published pairs of the real vocabulary."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgemma import ModelFileError, RequestError, Tokenizer
from dgemma.tokenizer import TextStream

BOS, EOS, TURN_END, TOOL_RESPONSE = 2, 1, 6, 8


@pytest.fixture
def tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_metadata(metadata, "small.gguf")


def spell(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.id_to_token(id) for id in ids]


def slow_encode(text: str, metadata: dict[str, Any]) -> list[str]:
    """Byte-pair encoding as the definition has it: again and again join the leftmost pair of the best rank."""
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    pieces = list(text.replace(" ", "▁"))
    while True:
        pairs = list(itertools.pairwise(pieces))
        best = min((pair for pair in pairs if pair in ranks), key=lambda pair: ranks[pair], default=None)
        if best is None:
            break
        at = pairs.index(best)
        pieces[at : at + 2] = ["".join(best)]
    known = set(metadata["tokenizer.ggml.tokens"])
    spelled = [[piece] if piece in known else [f"<0x{byte:02X}>" for byte in piece.encode()] for piece in pieces]
    return [piece for group in spelled for piece in group]


def test_encode_by_hand(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("hello hello\n\n é")
    assert spell(tokenizer, ids) == ["<bos>", "hello", "▁hello", "\n\n", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.encode("", add_bos=False) == []
    assert tokenizer.encode("") == [BOS]


def test_encode_and_decode_agree_with_the_definition(tokenizer: Tokenizer, metadata: dict[str, Any]) -> None:
    random_letters = random.Random(4)
    for length in range(60):
        text = "".join(random_letters.choices(["h", "e", "l", "o", " ", "hello", "\n", "é", "🦙", "▁"], k=length))
        ids = tokenizer.encode(text, add_bos=False)
        assert spell(tokenizer, ids) == slow_encode(text, metadata)
        assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_bos_is_never_doubled(tokenizer: Tokenizer) -> None:
    once = tokenizer.encode("<bos>a")
    assert once == tokenizer.encode("a")
    assert once == tokenizer.encode("<bos>a", add_bos=False)
    # Only the start is looked at: what a text says twice itself stays.
    assert tokenizer.encode("<bos><bos>a")[:2] == [BOS, BOS]


@pytest.mark.parametrize("special", ["<bos>", "<turn|>", "<|tool_response>", "<0x0A>"])
def test_special_tokens_can_be_ordinary_text(tokenizer: Tokenizer, special: str) -> None:
    plain = tokenizer.encode(special, add_bos=False, parse_special=False)
    assert tokenizer.token_to_id(special) not in plain
    assert tokenizer.decode(plain) == special
    assert tokenizer.encode("<bos>", parse_special=False)[0] == BOS


def test_special_tokens_inside_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<|turn>hello<turn|>\n<|tool_response>")
    assert spell(tokenizer, ids) == ["<bos>", "<|turn>", "hello", "<turn|>", "\n", "<|tool_response>"]
    assert tokenizer.decode(ids) == "<bos><|turn>hello<turn|>\n<|tool_response>"
    assert tokenizer.decode(ids, skip_special=True) == "hello\n<|tool_response>"


def test_the_letter_that_stands_for_spaces_in_merges(metadata: dict[str, Any]) -> None:
    # "Ġ" is a token here, so a merge with it means the letter; "Ġa" is none, so there it means a space.
    metadata["tokenizer.ggml.tokens"] += ["Ġb", " a", " ac"]
    types = metadata["tokenizer.ggml.token_type"]
    metadata["tokenizer.ggml.token_type"] = np.append(types, np.array([1, 1, 1], dtype=np.int32))
    metadata["tokenizer.ggml.merges"] += ["Ġ b", "Ġa c"]
    tokenizer = Tokenizer.from_metadata(metadata, "small.gguf")
    assert spell(tokenizer, tokenizer.encode("Ġb", add_bos=False)) == ["Ġb"]


def test_decode_replaces_broken_bytes(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode("é", add_bos=False)[:1]
    letter = tokenizer.encode("a", add_bos=False)
    assert tokenizer.decode(half) == "\ufffd"
    assert tokenizer.decode(half + letter) == "\ufffda"
    assert tokenizer.decode(np.array(letter, dtype=np.int32)) == "a"


@pytest.mark.parametrize("text", ["hello 🦙 é", "🦙🦙", "a"])
def test_text_stream_holds_back_cut_characters(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_bos=False)
    for cut in range(len(ids) + 1):
        stream = TextStream(tokenizer)
        parts = [stream.feed(ids[:cut]), stream.feed(ids[cut:]), stream.finish()]
        assert "".join(parts) == text
        assert "\ufffd" not in parts[0]


def test_text_stream_ends_with_what_never_became_a_character(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    half = tokenizer.encode("🦙", add_bos=False)[:3]
    assert (stream.feed(half), stream.finish()) == ("", tokenizer.decode(half))


@pytest.mark.parametrize("id", [-1, 10**6])
def test_ids_outside_the_vocabulary(tokenizer: Tokenizer, id: int) -> None:
    with pytest.raises(RequestError, match=f"token id {id} is outside the vocabulary of {tokenizer.vocab_size}"):
        tokenizer.decode([id])
    with pytest.raises(RequestError, match="outside the vocabulary"):
        tokenizer.id_to_token(id)


def test_text_that_is_no_unicode(tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="not valid Unicode at character 2"):
        tokenizer.encode("ab\udcff")


def test_end_ids(metadata: dict[str, Any]) -> None:
    def end_ids(**changes: object) -> tuple[int, ...]:
        return Tokenizer.from_metadata({**metadata, **changes}, "small.gguf").eos_ids

    assert end_ids() == (EOS, TURN_END, TOOL_RESPONSE)
    assert end_ids(**{"tokenizer.ggml.eot_token_id": 7}) == (EOS, TURN_END, 7, TOOL_RESPONSE)
    assert end_ids(**{"diffusion.eos_token_ids": np.array([6, 1], dtype=np.uint32)}) == (6, 1)
    # A token that merely spells like an end token does not end an answer.
    types = metadata["tokenizer.ggml.token_type"].copy()
    types[TURN_END] = 1
    assert end_ids(**{"tokenizer.ggml.token_type": types}) == (EOS, TOOL_RESPONSE)


def test_properties(tokenizer: Tokenizer, metadata: dict[str, Any]) -> None:
    assert tokenizer.vocab_size == len(metadata["tokenizer.ggml.tokens"])
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.source) == (BOS, EOS, "small.gguf")
    assert tokenizer.chat_template == metadata["tokenizer.chat_template"]
    assert tokenizer.token_to_id("nowhere") is None
    del metadata["tokenizer.chat_template"], metadata["tokenizer.ggml.eos_token_id"]
    bare = Tokenizer.from_metadata(metadata, "small.gguf")
    assert (bare.chat_template, bare.eos_id) == (None, None)


BAD_METADATA: dict[str, list[Any]] = {
    "tokenizer.ggml.model": ["llama", 3],
    "tokenizer.ggml.tokens": [None, "abc", np.arange(3), [], ["<bos>"] * 400],
    "tokenizer.ggml.token_type": [None, 3, np.ones(4, dtype=np.int32), np.ones(400), ["1"]],
    "tokenizer.ggml.merges": [None, [1, 2], ["nospace"], ["a zz"], ["zz a"], ["Ġq x"]],
    "tokenizer.ggml.bos_token_id": [None, "2", True, -1, 10**9, 2.0],
    "tokenizer.ggml.eos_token_id": [10**9, "1"],
    "diffusion.eos_token_ids": [3, [1.5], np.array([10**6]), np.array([-1]), np.array([1.0])],
    "tokenizer.chat_template": [7, ["a"]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD_METADATA.items() for value in values])
def test_bad_metadata_is_one_sentence(metadata: dict[str, Any], key: str, value: object) -> None:
    metadata.pop(key, None)
    if value is not None:
        metadata[key] = value
    with pytest.raises(ModelFileError, match=r"^small\.gguf: ") as caught:
        Tokenizer.from_metadata(metadata, "small.gguf")
    message = str(caught.value)
    assert message.split(": ")[1].startswith(("tokenizer.", "diffusion."))
    assert "\n" not in message
    assert len(message) < 200
    if key != "tokenizer.ggml.tokens":  # a wrong list of tokens shows where another key disagrees with it
        assert key in message


def test_bytes_that_cannot_be_spelled(metadata: dict[str, Any]) -> None:
    metadata["tokenizer.ggml.tokens"][20] = "odd"
    with pytest.raises(ModelFileError, match="spells the byte token 20 as 'odd'"):
        Tokenizer.from_metadata(metadata, "small.gguf")
    metadata["tokenizer.ggml.token_type"][20] = 1
    assert Tokenizer.from_metadata(metadata, "small.gguf").encode("\n", add_bos=False)  # there is an unknown token
    del metadata["tokenizer.ggml.unknown_token_id"]
    with pytest.raises(ModelFileError, match="neither all 256 bytes nor an unknown token"):
        Tokenizer.from_metadata(metadata, "small.gguf")


def test_real_vocabulary_gives_the_published_pairs(real_vocabulary: Path, real_tokenizer: Tokenizer) -> None:
    tokenizer = real_tokenizer
    inputs = Path(f"{real_vocabulary}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    outputs = [[int(id) for id in line.split()] for line in Path(f"{real_vocabulary}.out").read_text().splitlines()]
    assert len(outputs) == 46
    for text, ids in zip(inputs, outputs, strict=True):
        assert tokenizer.encode(text, add_bos=False) == ids
        assert tokenizer.encode(text, add_bos=False, parse_special=False) == ids
        assert tokenizer.decode(ids) == text
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids) == (262144, 2, (1, 50, 106))
    assert tokenizer.encode("<bos><|turn>user\nhi<turn|>\n") == [2, 105, 2364, 107, 2202, 106, 107]
    assert tokenizer.encode("\n" * 40, add_bos=False) == [137, 115]  # runs of 31 and 9 newlines
