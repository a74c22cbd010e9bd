"""Passages: where they are cut, what they hold, and which texts give none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scripted import vocabulary

from dgemma import FileError, RequestError, Tokenizer
from dgemma.passages import (
    STORED_PROMPTS,
    Passage,
    load_passages,
    prompt_passages,
    read_text,
    text_passages,
)

BOS = 2


@pytest.fixture
def letters() -> Tokenizer:
    """A character a token."""
    return Tokenizer.from_metadata(vocabulary(), "letters.gguf")


def spelled(tokenizer: Tokenizer, passage: Passage) -> tuple[str, str]:
    assert passage.prefix[0] == BOS
    assert passage.canvas is not None
    return tokenizer.decode(passage.prefix[1:]), tokenizer.decode(passage.canvas)


def test_windows_follow_each_other(letters: Tokenizer) -> None:
    passages = text_passages("abcdefghijklmnop", letters, canvas_length=2, prefix_length=3, limit=10)
    assert [spelled(letters, passage) for passage in passages] == [("abc", "de"), ("fgh", "ij"), ("klm", "no")]


def test_a_text_of_just_one_window(letters: Tokenizer) -> None:
    assert len(text_passages("abcde", letters, 2, 3, limit=10)) == 1
    with pytest.raises(
        RequestError, match=r"^t\.txt has 4 tokens, too few for a passage: a prefix of 3 and a canvas of 2"
    ):
        text_passages("abcd", letters, 2, 3, limit=10, source="t.txt")


def test_a_limit_is_spread_over_the_text(letters: Tokenizer) -> None:
    text = "".join(chr(ord("a") + i) * 2 for i in range(10))
    passages = text_passages(text, letters, canvas_length=1, prefix_length=1, limit=4)
    assert [spelled(letters, passage)[0] for passage in passages] == ["a", "c", "f", "h"]


def test_a_text_is_taken_as_it_is(letters: Tokenizer) -> None:
    text = "<turn|><bos>"
    passage = text_passages(text, letters, canvas_length=5, prefix_length=len(text) - 5, limit=1)[0]
    assert "".join(spelled(letters, passage)) == text  # a token for each character


def test_prompts_go_into_the_chat_template(letters: Tokenizer) -> None:
    passages = prompt_passages(["Hi", " ", "Why?", ""], letters, limit=8)
    assert [letters.decode(passage.prefix) for passage in passages] == [
        f"<bos><|turn>user\n{text}<turn|><|turn>model\n" for text in ("Hi", "Why?")
    ]
    assert all(passage.canvas is None and passage.prefix.count(BOS) == 1 for passage in passages)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda t: text_passages(" \n", t, 2, 3, 1, "t.txt"), "^t.txt is empty$"),
        (lambda t: prompt_passages(["", " "], t, 1, "p.txt"), "^p.txt is empty$"),
        (lambda t: text_passages("abc", t, 2, 0, 1), "^prefix_length must be at least 1, not 0$"),
        (lambda t: text_passages("abc", t, -1, 1, 1), "^canvas_length must be at least 1, not -1$"),
        (lambda t: prompt_passages(["a"], t, 0), "^limit must be at least 1, not 0$"),
    ],
)
def test_what_gives_no_passage(letters: Tokenizer, call: Callable[[Tokenizer], object], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        call(letters)


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_bytes("\ufeffgrün".encode())
    assert read_text(file) == "grün"
    file.write_bytes(b"gr\xfcn")
    with pytest.raises(FileError, match=r"t\.txt is not UTF-8 text: byte 2 is no part of it"):
        read_text(file)
    with pytest.raises(FileError, match=r"none\.txt cannot be read: No such file"):
        read_text(tmp_path / "none.txt")


def test_passages_for_a_model(toy_model: Path, toy: Tokenizer, tmp_path: Path) -> None:
    stored = read_text(STORED_PROMPTS).splitlines()
    passages = load_passages(toy_model, limit=len(stored))
    assert len(passages) == len(stored) >= 8
    assert stored[0] in toy.decode(passages[0].prefix)
    file = tmp_path / "some.txt"
    file.write_text("One two three.\n" * 40)
    windows = load_passages(toy_model, text=file, prefix_length=20)
    assert {(len(passage.prefix), len(passage.canvas or ())) for passage in windows} == {(21, 16)}
    assert len(load_passages(toy_model, prompts=file, limit=3)) == 3
    with pytest.raises(RequestError, match="a text or prompts, not both"):
        load_passages(toy_model, text=file, prompts=file)
