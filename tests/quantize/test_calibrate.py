"""Collecting a matrix: prompts from a text, runs that go on, runs that stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibration import TEXT
from gguf import GGUFReader

from dgemma import Engine, Error, FileError, RequestError, Tokenizer
from dgemma.quantize import Imatrix, merge, read_imatrix
from dgemma.quantize.calibrate import Calibration, make_imatrix, make_prompts

SHORT = Calibration(chunk_size=48, n_predict=17)


@pytest.fixture(scope="session")
def whole(float_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pieces in one go."""
    path = tmp_path_factory.mktemp("whole") / "imatrix.gguf"
    make_imatrix(float_gguf, TEXT, path, SHORT, dataset="text.txt", chunks=4)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "imatrix.gguf"


def check_close(found: Imatrix, expected: Imatrix) -> None:
    """A file holds float32, so that a run with a stop in it differs from one without by its rounding."""
    assert found.entries.keys() == expected.entries.keys()
    assert found.chunk_count == expected.chunk_count
    for name, inputs in expected.entries.items():
        np.testing.assert_array_equal(found.entries[name].rows, inputs.rows)
        np.testing.assert_allclose(found.entries[name].squares, inputs.squares, rtol=1e-6)


# ------------------------------------------------------------------------------------------------ prompts


def test_raw_pieces_are_the_text_itself(float_gguf: Path) -> None:
    tokenizer = Tokenizer.from_gguf(float_gguf)
    ids = tokenizer.encode(TEXT, add_bos=False)
    prompts = make_prompts(TEXT, tokenizer, Calibration(10, raw=True))
    assert {len(prompt) for prompt in prompts} == {10}
    assert {prompt[0] for prompt in prompts} == {tokenizer.bos_id}
    assert [id for prompt in prompts for id in prompt[1:]] == ids[: len(ids) // 9 * 9]
    assert make_prompts(TEXT, tokenizer, Calibration(10, raw=True, first=3)) == prompts[3:]


def test_special_tokens_are_text_unless_asked_for(float_gguf: Path) -> None:
    tokenizer, text = Tokenizer.from_gguf(float_gguf), "<|turn>user\nHi there<turn|>\n" * 4
    turn = tokenizer.token_to_id("<|turn>")
    assert turn not in make_prompts(text, tokenizer, Calibration(12, raw=True))[0]
    assert turn in make_prompts(text, tokenizer, Calibration(12, raw=True, parse_special=True))[0]
    chat = make_prompts(text, tokenizer, Calibration(12))[0]
    assert chat.count(turn) == 2  # the template's own: the user's turn, and the model's that it opens
    with pytest.raises(RequestError, match="parse_special is for texts that are prompts already"):
        Calibration(parse_special=True)


def test_pieces_of_a_chat_hold_the_text(float_gguf: Path) -> None:
    tokenizer = Tokenizer.from_gguf(float_gguf)
    text = TEXT + " \U0001f600 \u4f60\u597d" * 20  # characters of several tokens, which borders cut
    prompts = make_prompts(text, tokenizer, Calibration(7))
    said = [tokenizer.decode(prompt) for prompt in prompts]
    assert all(each.startswith("<bos><|turn>user\n") for each in said)
    assert not any("\N{REPLACEMENT CHARACTER}" in each for each in said)


@pytest.mark.parametrize(("text", "calibration"), [("Hello", Calibration(64)), (TEXT, Calibration(64, first=1000))])
def test_a_text_that_is_too_short(float_gguf: Path, path: Path, text: str, calibration: Calibration) -> None:
    with pytest.raises(
        RequestError, match=r"^the text has \d+ tokens, which is less than \d+ of 64: take a longer text"
    ):
        make_imatrix(float_gguf, text, path, calibration)
    assert not path.exists()


# ------------------------------------------------------------------------------------------------ runs


def test_it_is_what_the_sessions_saw(float_gguf: Path, whole: Path) -> None:
    prompts = make_prompts(TEXT, Tokenizer.from_gguf(float_gguf), SHORT)[:4]
    expected = Imatrix({}, chunk_count=4)
    with Engine(float_gguf, n_ctx=256, exact=True) as engine:
        session = engine.session()
        session.collect_inputs()
        for seed, prompt in enumerate(prompts):
            session.truncate(0)
            list(session.generate(prompt, 17, seed))
        sums = session.take_inputs()
    found = read_imatrix(whole)
    assert sums.keys() == found.entries.keys()
    for name, (squares, rows) in sums.items():
        np.testing.assert_array_equal(found.entries[name].rows, rows)
        np.testing.assert_allclose(found.entries[name].squares, squares, rtol=1e-6)
    assert (found.datasets, found.chunk_count, found.chunk_size) == (("text.txt",), expected.chunk_count, 48)


def test_threads_change_nothing(float_gguf: Path, whole: Path, path: Path) -> None:
    for threads in (1, 3):
        make_imatrix(float_gguf, TEXT, path, SHORT, dataset="text.txt", chunks=4, threads=threads, force=True)
        assert path.read_bytes() == whole.read_bytes()


def test_a_run_goes_on(float_gguf: Path, whole: Path, path: Path) -> None:
    make_imatrix(float_gguf, TEXT, path, SHORT, chunks=1, resume=True)
    made = make_imatrix(float_gguf, TEXT, path, SHORT, chunks=4, resume=True)
    check_close(made, read_imatrix(whole))
    check_close(read_imatrix(path), made)
    before = path.stat().st_mtime_ns
    make_imatrix(float_gguf, TEXT, path, SHORT, chunks=4, resume=True)  # there is nothing to do
    assert path.stat().st_mtime_ns == before


def test_parts_merged_are_one_run(float_gguf: Path, whole: Path, path: Path, tmp_path: Path) -> None:
    first = make_imatrix(float_gguf, TEXT, path, SHORT, chunks=3)
    last = make_imatrix(float_gguf, TEXT, tmp_path / "last.gguf", replace(SHORT, first=3), chunks=1)
    check_close(merge([first, last]), read_imatrix(whole))
    together = tmp_path / "together.gguf"
    made = make_imatrix(float_gguf, TEXT, together, replace(SHORT, first=3), chunks=1, merge_with=[read_imatrix(path)])
    check_close(made, read_imatrix(whole))
    check_close(read_imatrix(together), made)


@pytest.mark.parametrize("save_every", [1, 10])
def test_an_interrupted_run_keeps_whole_pieces(float_gguf: Path, whole: Path, path: Path, save_every: int) -> None:
    def interrupt(index: int, total: int, part: float) -> None:
        assert total == 4
        assert 0 < part <= 1
        if index == 2 and part > 0.5:
            raise KeyboardInterrupt

    arguments = {"chunks": 4, "resume": True, "save_every": save_every}
    with pytest.raises(KeyboardInterrupt):
        make_imatrix(float_gguf, TEXT, path, SHORT, watch=interrupt, **arguments)
    two = path.parent / "two.gguf"
    make_imatrix(float_gguf, TEXT, two, SHORT, chunks=2)
    assert path.read_bytes() == two.read_bytes()
    make_imatrix(float_gguf, TEXT, path, SHORT, **arguments)
    check_close(read_imatrix(path), read_imatrix(whole))


def test_a_run_interrupted_at_once_leaves_nothing(float_gguf: Path, path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_imatrix(float_gguf, TEXT, path, SHORT, watch=interrupt)
    assert list(path.parent.iterdir()) == []


def test_only_the_same_run_goes_on(float_gguf: Path, wide_float: Path, whole: Path, path: Path) -> None:
    path.write_bytes(whole.read_bytes())
    for arguments in (
        (float_gguf, TEXT + "!", path, SHORT),
        (float_gguf, TEXT, path, replace(SHORT, seed=1)),
        (wide_float, TEXT, path, SHORT),
    ):
        with pytest.raises(RequestError, match="cannot go on: it is of another text, model or settings"):
            make_imatrix(*arguments, resume=True)
    assert path.read_bytes() == whole.read_bytes()


def test_outputs_that_cannot_be(float_gguf: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="exists already"):
        make_imatrix(float_gguf, TEXT, whole, SHORT)
    with pytest.raises(FileError, match="is a file of the model"):
        make_imatrix(float_gguf, TEXT, float_gguf, SHORT, force=True)
    with pytest.raises(FileError, match="no such folder"):
        make_imatrix(float_gguf, TEXT, tmp_path / "none" / "imatrix.gguf", SHORT)


@pytest.mark.parametrize(
    ("tensor", "value", "sentence"),
    [
        ("blk.0.ffn_norm.weight", np.nan, "^the logits of canvas position 0 are not numbers"),
        (
            "blk.0.attn_norm.weight",
            1e25,
            r"the inputs of blk\.0\.attn_k\.weight are too large: the model file is damaged",
        ),
    ],
)
def test_a_damaged_model(
    float_gguf: Path, path: Path, tmp_path: Path, tensor: str, value: float, sentence: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(float_gguf.read_bytes())
    data = next(t.data for t in GGUFReader(broken, "r+").tensors if t.name == tensor)
    data[0] = value
    data.flush()
    with pytest.raises(Error, match=sentence):
        make_imatrix(broken, TEXT, path, SHORT, chunks=1)
    assert not path.exists()
