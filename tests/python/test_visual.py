"""The live canvas on a terminal: when it is drawn, what is left of it, and how the terminal is given back."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from canvases import (
    ENTER,
    EOS,
    LEAVE,
    PROGRESS,
    TOKENIZER,
    console,
    frames,
    ids,
    ordinary,
    output,
    plain,
    step,
)
from rich.cells import cell_len

from dgemma import BlockEvent, DoneEvent, GenerationStats, RequestError
from dgemma.events import Event
from dgemma.visual import CanvasView
from dgemma.visual.cells import canvas_cells
from dgemma.visual.demo import TEXT, scripted_events
from dgemma.visual.frame import draw_frame

# Frames


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_line_of_every_frame_fits(width: int) -> None:
    target = console(width, 12)
    with CanvasView(target, TOKENIZER, heading="> Why?", clock=iter(range(10**6)).__next__) as view:
        for event in scripted_events(TOKENIZER, ids(TEXT), canvas_length=64, steps=24):
            view.show(event)
    pictures = frames(output(target))
    assert len(pictures) > 24
    for lines in pictures:
        assert len(lines) <= 12
        assert all(cell_len(line) < width for line in lines)


def test_the_rest_of_the_screen_shows_what_was_written() -> None:
    target = console(40, 8)
    with CanvasView(target, TOKENIZER, heading="> Why?") as view:
        view.write("one\ntwo\n")
        view.show(step(ids("The sky")))
    (lines,) = frames(output(target))
    assert lines[:3] + lines[4:] == ["> Why?", "one", "two", "The sky"]


def test_a_canvas_taller_than_the_screen_is_shown_where_it_works() -> None:
    words = ids("The sky is blue because air scatters short waves more than long ones. Sunlight")
    accepted = [True] * len(words)
    settled, busy = step(words), step(words, accepted[:-5] + [False] * 5, [0] * (len(words) - 5) + [9] * 5)
    early = step(words, [False] * len(words), [9] * len(words))
    shown = {
        name: ["".join(segment.text for segment in line) for line in draw_frame(cells, PROGRESS, 12, 4, "past")]
        for name, event in {"settled": settled, "busy": busy, "early": early}.items()
        if (cells := canvas_cells(event, TOKENIZER))
    }
    assert all(len(lines) == 4 for lines in shown.values())
    assert shown["settled"][-1].endswith("Sunlight")
    assert "\u2801" <= shown["busy"][2][-1] <= "\u28ff"
    assert re.match(" [\u2801-\u28ff]", shown["early"][1])
    status = draw_frame(canvas_cells(settled, TOKENIZER), PROGRESS, 120, 2)
    assert "of" not in status[0][0].text
    wide = draw_frame(canvas_cells(settled, TOKENIZER) * 9, PROGRESS, 150, 3)
    assert re.search(r"lines \d+-\d+ of \d+", wide[0][0].text)


def test_a_grid_keeps_its_rows() -> None:
    """Three positions to a line, of which the third is the line end; noise and words are one sign wide."""
    target, tokens = console(40, 8), ids("The sky\nThe sky\n")
    assert len(tokens) == 6
    with CanvasView(target, TOKENIZER, heading="> Why?", row_length=3) as view:
        view.show(step(tokens, entropy=[0, 0, 0, 9, 0, 0], accepted=[True, True, True, False, True, True]))
    (lines,) = frames(output(target))
    assert lines[0] == "> Why?"
    first, second = lines[2:]
    assert first == " e y"
    assert second[2:] == " y"
    assert cell_len(second) == 4
    assert second[1] != "e"


def test_noise_is_told_from_text_without_colour() -> None:
    target = console(no_color=True)
    with CanvasView(target, TOKENIZER) as view:
        view.show(step(ids("The sky is"), [True, False, True], [0, 9, 0]))
    assert not re.search(r"\x1b\[[0-9;]*(3|9)[0-7]m", output(target))
    assert re.fullmatch("The [\u2801-\u28ff]{3} is", frames(output(target))[0][1])


def test_exact_codes_of_one_small_frame() -> None:
    target = console(20, 5, color_system=None)
    with CanvasView(target, TOKENIZER, clock=lambda: 0.0) as view:
        view.show(step(ids("The sky")))
    assert output(target) == (
        "\x1b[?2026h\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H"
        "1:1 T0.70 H0.00 100\x1b[K\r\nThe sky\x1b[K\x1b[J\x1b[?7h\x1b[?2026l"
        "\x1b[?2026h\x1b[?7h\x1b[H\x1b[J\x1b[?1049l\x1b[?25h\x1b[?2026l"
    )


# When


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def numbers(codes: str) -> list[int]:
    """The steps drawn, in order."""
    return [int(found) for found in re.findall(r"step (\d+)", plain(codes))]


def play(events: list[Event], seconds: float, **options: Any) -> list[int]:
    clock, target = Clock(), console()
    with CanvasView(target, TOKENIZER, clock=clock, **options) as view:
        for event in events:
            clock.now += seconds
            view.show(event)
    return numbers(output(target))


def block_of(steps: int) -> list[Event]:
    words = ids("The sky")
    return [*(step(words, number=number) for number in range(1, steps + 1)), BlockEvent(0, words)]


def test_at_most_thirty_frames_a_second_and_the_last_one_always() -> None:
    # 100 steps in a second; the block's own picture at the end repeats the last step's numbers.
    shown = play(block_of(100), 0.01)
    assert len(shown) <= 32
    assert shown[0] == 1
    assert shown[-2:] == [100, 100]
    assert play(block_of(5), 1.0) == [1, 2, 3, 4, 5, 5]
    assert len(play(block_of(100), 0.01, max_frames_per_second=5)) <= 8


def test_an_interval_leaves_steps_out() -> None:
    assert play(block_of(10), 1.0, interval=4) == [1, 5, 9, 10, 10]


@pytest.mark.parametrize("options", [{"interval": 0}, {"max_frames_per_second": 0}, {"max_frames_per_second": -1}])
def test_impossible_rates_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(RequestError, match=next(iter(options))):
        CanvasView(console(), TOKENIZER, **options)


# What is left


def answer(text: str, block: int) -> list[Event]:
    words = ids(text)
    blocks = [words[start : start + block] for start in range(0, len(words), block)]
    done = DoneEvent("stop", EOS, GenerationStats(1, len(words), len(blocks), 1, 0.1, 0.1, 0.2))
    return [event for n, part in enumerate(blocks) for event in (step(part, block=n), BlockEvent(n, part))] + [done]


@pytest.mark.parametrize("text", [TEXT, "é\té é", "The sky\n\n", "e\u0301👨\u200d👩\u200d👧 \u202e青"])
@pytest.mark.parametrize("block", [1, 3, 1000])
def test_finished_text_is_the_decoded_tokens(text: str, block: int) -> None:
    target, pipe = console(), console(force_terminal=False)
    for screen in (target, pipe):
        with CanvasView(screen, TOKENIZER) as view:
            for event in answer(text, block):
                view.show(event)
    assert ordinary(output(target)) == text == TOKENIZER.decode(ids(text))
    assert output(pipe) == text


def test_text_on_a_terminal_is_not_obeyed() -> None:
    target, pipe = console(color_system=None), console(force_terminal=False)
    for screen in (target, pipe):
        with CanvasView(screen, TOKENIZER) as view:
            view.write("a\x1b[2Jb\x9b\r\nc\td")
    assert output(target) == "a\ufffd[2Jb\ufffd\ufffd\nc\td"
    assert output(pipe) == "a\x1b[2Jb\x9b\r\nc\td"


def test_text_cut_inside_a_character_is_shown_at_the_end() -> None:
    target = console(force_terminal=False)
    first, _ = TOKENIZER.encode("é", add_bos=False)
    with CanvasView(target, TOKENIZER) as view:
        view.show(BlockEvent(0, [first]))
        assert output(target) == ""
        view.show(DoneEvent("length", None, GenerationStats(1, 1, 1, 1, 0, 0, 0)))
    assert output(target) == "\ufffd"


def test_the_caller_can_print_the_blocks() -> None:
    target, blocks = console(), []

    def print_block(event: BlockEvent) -> None:
        blocks.append(event.tokens)
        view.write(f"<{len(event.tokens)}>")

    with CanvasView(target, TOKENIZER, print_block=print_block) as view:
        for event in answer("The sky is blue", 2):
            view.show(event)
    assert blocks == [ids("The sky"), ids(" is blue")]
    assert ordinary(output(target)) == "<2><2>"
    assert frames(output(target))[-1][0] == "<2><2>"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_terminal_is_given_back_after_an_error(error: type[BaseException]) -> None:
    target = console()

    def interrupted() -> None:
        with CanvasView(target, TOKENIZER) as view:
            view.show(step(ids("The sky")))
            raise error

    with pytest.raises(error):
        interrupted()
    end = output(target)[output(target).rindex(ENTER) :]
    assert LEAVE in end
    assert end.rindex("\x1b[?25h") > end.rindex("\x1b[?25l")
    assert end.rindex("\x1b[?7h") > end.rindex("\x1b[?7l")
    assert output(target).count("\x1b[?2026h") == output(target).count("\x1b[?2026l")


def test_the_terminal_is_given_back_after_a_write_that_was_cut() -> None:
    class Cut(io.StringIO):
        armed = True

        def write(self, text: str) -> int:
            if self.armed and ENTER in text:
                Cut.armed = False
                super().write(text[: len(text) // 2])
                raise KeyboardInterrupt
            return super().write(text)

    target = console()
    target.file = Cut()
    with pytest.raises(KeyboardInterrupt), CanvasView(target, TOKENIZER) as view:
        view.show(step(ids("The sky")))
    assert output(target).endswith("\x1b[?7h\x1b[H\x1b[J\x1b[?1049l\x1b[?25h\x1b[?2026l")


@pytest.mark.parametrize("options", [{"width": 10}, {"height": 2}, {"legacy_windows": True}, {"force_terminal": False}])
def test_no_frames_where_there_is_no_place_for_them(options: dict[str, Any]) -> None:
    target = console(**options)
    with CanvasView(target, TOKENIZER) as view:
        for event in answer("The sky is blue", 2):
            view.show(event)
    assert plain(output(target)) == "The sky is blue"
    assert ENTER not in output(target)


def test_a_resize_is_followed() -> None:
    target = console(80)
    with CanvasView(target, TOKENIZER, clock=iter(range(1000)).__next__) as view:
        view.show(step(ids("The sky is blue because air scatters short waves")))
        target.width = 40
        view.show(step(ids("The sky is blue because air scatters short waves"), number=2))
    wide, narrow = frames(output(target))
    assert (cell_len(wide[0]), cell_len(narrow[0])) == (79, 39)


def test_an_encoding_that_lacks_the_signs_does_not_end_the_answer() -> None:
    raw = io.BytesIO()
    target = console()
    target.file = io.TextIOWrapper(raw, encoding="ascii", newline="")
    with CanvasView(target, TOKENIZER) as view:
        view.show(step(ids("The sky"), [True, False], [0, 9]))
        view.write("é")
    codes = raw.getvalue().decode("ascii")
    assert frames(codes)[0][1] == "The ???"
    assert ordinary(codes) == "?"
