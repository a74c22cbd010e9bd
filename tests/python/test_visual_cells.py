"""The live canvas on paper: what each position looks like, and that no line is wider than planned."""

from __future__ import annotations

import re

import pytest
from canvases import EOS, PROGRESS, TOKENIZER, drawn, ids, step
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from dgemma.visual import canvas_html
from dgemma.visual.cells import END_MARK, Cell, Look, canvas_cells, readable_tokens
from dgemma.visual.demo import toy_ids, toy_tokenizer
from dgemma.visual.glyphs import SUBSTITUTE, split_glyphs
from dgemma.visual.layout import line_width, spans, wrap
from dgemma.visual.status import status_line

# What breaks layouts: wide and joined emoji, flags, marks, right-to-left letters, controls, stray bytes, odd spaces.
NASTY = [
    "👨\u200d👩\u200d👧",
    "👍🏽",
    "🇫🇷",
    "1\ufe0f\u20e3",
    "❤\ufe0f",
    "\u0301" * 9,
    "z\u0301\u0302",
    "שלום",
    "مرحبا",
    "\u202e",
]
NASTY += [
    "\x1b[2J",
    "\x00",
    "\x9b",
    "\n",
    "\r",
    "\t",
    "\u2028",
    "\u200b",
    "\xad",
    "青",
    "가",
    "\u1100\u1161",
    "नमस्ते",
    "ำ",
    "\u3000",
]
NASTY += ["\ue000", "\U000e0041", "\ufdfd", "\u115f", " " * 50, "=" * 50, "\u0378", "ﷺ"]
fragments = st.one_of(
    st.sampled_from(NASTY).map(str.encode), st.binary(max_size=5), st.text(max_size=6).map(str.encode)
)
looks = st.sampled_from(list(Look))


# Cells


def test_a_position_looks_as_sure_as_it_is() -> None:
    entropy = [0.0, 0.05, 0.5, 3.0, 0.0, 0.05, 0.5, 3.0]
    accepted = [True] * 4 + [False] * 4
    words = ids("The sky is blue because air scatters short")
    first = canvas_cells(step(words, accepted, entropy), TOKENIZER)
    assert [cell.look for cell in first] == [Look.FRESH] * 4 + [Look.SURE, Look.LIKELY, Look.GUESS, Look.NOISE]
    assert drawn(first)[:7] == ["The", " sky", " is", " blue", " because", " air", " scatters"]

    again = canvas_cells(step(words, accepted, entropy, 2), TOKENIZER, step(words, accepted, entropy))
    assert [cell.look for cell in again][:4] == [Look.SURE, Look.LIKELY, Look.GUESS, Look.GUESS]
    assert "short" not in drawn(again)[7]


def test_what_is_renoised_has_to_be_surer_to_stay_text() -> None:
    words, entropy = ids("The sky is"), [0.05, 0.5, 3.0]
    lost = canvas_cells(step(words, [False] * 3, entropy, 2), TOKENIZER, step(words))
    assert [cell.look for cell in lost] == [Look.LIKELY, Look.LOST, Look.LOST]


def test_another_block_begins_afresh() -> None:
    words = ids("The sky")
    cells = canvas_cells(step(words, block=1), TOKENIZER, step(words))
    assert {cell.look for cell in cells} == {Look.FRESH}


def test_static_follows_the_noise_and_not_the_draft() -> None:
    def static(draft: str, noise: int) -> list[str]:
        return drawn(canvas_cells(step(ids(draft), [False] * 2, [9.0, 9.0], noise=noise), TOKENIZER))

    assert static("The sky", 40) == static("is blue", 40) != static("The sky", 41)
    assert all(re.fullmatch(" [\u2801-\u28ff]{3}", text) for text in static("The sky", 40))


def test_no_number_is_noise() -> None:
    assert canvas_cells(step(ids("The"), [False], [float("nan")]), TOKENIZER)[0].look is Look.NOISE


def test_after_the_first_believable_end_there_is_padding() -> None:
    words = [*ids("The sky"), EOS, *ids("is"), EOS]
    cells = canvas_cells(step(words), TOKENIZER)
    assert drawn(cells) == ["The", " sky", END_MARK.text, "⋅", "⋅"]
    assert readable_tokens(cells) == 2
    unsure = step(words, [True, True, False, True, True], [0, 0, 9, 0, 0])
    assert drawn(canvas_cells(unsure, TOKENIZER))[3:] == ["is", END_MARK.text]


def test_special_tokens_are_marked() -> None:
    words = [2, *ids("The")]
    cells = canvas_cells(step(words, number=2), TOKENIZER, step(words))
    assert (cells[0].look, drawn(cells)) == (Look.MARKER, ["<bos>", "The"])


def test_bytes_are_drawn_as_whole_characters_only() -> None:
    first, second = TOKENIZER.encode("é", add_bos=False)
    assert drawn(canvas_cells(step([first, second]), TOKENIZER)) == ["é", ""]
    assert drawn(canvas_cells(step([second, first]), TOKENIZER)) == [SUBSTITUTE, SUBSTITUTE]
    # Static between them parts them.
    parted = drawn(canvas_cells(step([first, 40, second], [True, False, True], [0, 9, 0]), TOKENIZER))
    assert parted[0] == parted[2] == SUBSTITUTE


# Glyphs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\r", "a⏎b⇥c␍"),
        ("\x1b[2J\x7f\x9b", "␛[2J␡" + SUBSTITUTE),
        ("👨\u200d👩\u200d👧", "👨👩👧"),
        ("👍🏽", "👍"),
        ("🇫🇷", "FR"),
        ("1\ufe0f\u20e3", "1\u20e3"),
        ("\u0301a\u0301", SUBSTITUTE + "a\u0301"),
        ("a" + "\u0301" * 9, "a" + "\u0301" * 4 + SUBSTITUTE * 5),
        ("\u3000\xa0", "   "),
        ("\u202e\ue000\u200b", SUBSTITUTE * 3),
    ],
)
def test_doubtful_characters_are_replaced(text: str, shown: str) -> None:
    (glyphs,) = split_glyphs([text.encode()])
    assert "".join(glyph.text for glyph in glyphs) == shown


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(fragments, max_size=20))
def test_glyphs_have_the_width_that_they_are_given(pieces: list[bytes]) -> None:
    drawn = split_glyphs(pieces)
    assert len(drawn) == len(pieces)
    for glyph in (glyph for glyphs in drawn for glyph in glyphs):
        assert glyph.width == cell_len(glyph.text) in (1, 2)
        assert glyph.text.isprintable() or glyph.text == " "
        assert not set(glyph.text) & set("\u200d\ufe0f\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069")
        glyph.text.encode()  # no half character


# Layout


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.tuples(fragments, looks), max_size=30), st.integers(1, 60))
def test_no_line_is_wider_than_planned(pieces: list[tuple[bytes, Look]], width: int) -> None:
    glyphs = split_glyphs([piece for piece, _ in pieces])
    lines = wrap([Cell(cell, look) for cell, (_, look) in zip(glyphs, pieces, strict=True)], width)
    for line in lines:
        text = "".join(text for text, _ in spans(line))
        assert cell_len(text) == line_width(line) <= width
        assert text.count("\u2067") == text.count("\u2069")
    # Only a space at the start of a line may be missing.
    kept = "".join(glyph.text for line in lines for glyph, _ in line)
    if width > 1:
        assert kept.replace(" ", "") == "".join(glyph.text for cell in glyphs for glyph in cell).replace(" ", "")


def test_lines_break_between_tokens() -> None:
    cells = canvas_cells(step(ids("The sky is blue because")), TOKENIZER)
    lines = ["".join(text for text, _ in spans(line)) for line in wrap(cells, 10)]
    assert lines == ["The sky is", "blue", "because"]


def test_right_to_left_words_are_isolated_together() -> None:
    cells = [Cell(glyphs, Look.SURE) for glyphs in split_glyphs([text.encode() for text in ("a ", "של", " ום", " b")])]
    assert spans(wrap(cells, 20)[0]) == [("a \u2067של ום\u2069 b", Look.SURE)]


# The status line


@pytest.mark.parametrize("width", [10, 20, 39, 40, 60, 79, 80, 120, 199, 200])
@pytest.mark.parametrize("note", ["", "lines 12-34 of 99"])
def test_the_status_line_fills_its_width(width: int, note: str) -> None:
    assert cell_len(status_line(PROGRESS, width, note)) == width


def test_the_status_line_says_more_where_there_is_room() -> None:
    assert status_line(PROGRESS, 39).rstrip() == "1:12/48 T0.70 H1.23 63% 45.1t/s"
    assert status_line(PROGRESS, 79).rstrip() == "block 1  step 12/48  T 0.70  entropy 1.23  63% accepted  45.1 tok/s"
    wide = status_line(PROGRESS, 199)
    for part in ("temperature 0.70", "mean entropy 1.234 nats", "⣿⣀", "45.1 tokens/s", "8.3 steps/s"):
        assert part in wide


# HTML


def test_html_is_escaped() -> None:
    tokenizer = toy_tokenizer('<script>alert("&")</script> שלום')
    source = canvas_html(step(toy_ids(tokenizer, '<script>alert("&")</script> שלום')), tokenizer)._repr_html_()
    assert "<script" not in source
    assert "&lt;script&gt;alert(&quot;&amp;&quot;)" in source
    assert "<bdi> שלום</bdi>" in source
    assert source.count("<span") == source.count("</span>")
    assert str(canvas_html(step([EOS]), TOKENIZER)).count("∎") == 1
