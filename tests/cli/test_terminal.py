"""``dgemma run`` at a real terminal: tmux types, resizes and interrupts, and reads what is on the screen.

The model is small and random, so what it says means nothing. Nothing here depends on time: a test waits for words on
the screen, as long as it takes on a slow machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from random_checkpoint import CheckpointConfig, write_checkpoint

pytest.importorskip("dgemma._core", reason="the engine is not built")
if shutil.which("tmux") is None:
    pytest.skip("tmux is not installed", allow_module_level=True)

from dgemma.convert import convert

PATIENCE = 60  # seconds; a test that needs them has failed
DGEMMA = [sys.executable, "-c", "from dgemma.cli import main; main()"]
# A canvas that is never done: no step is confident enough, and there are more of them than anybody waits for.
ENDLESS = ["--diffusion-steps", "1000000", "--diffusion-eb-confidence", "0"]
SUDOKU = "12.4.6 4.61.3 2.15.4 .64.31 31.6.5 6.53.2"


class Terminal:
    """A program in a tmux of its own."""

    def __init__(self, socket: Path, columns: int, command: list[str]) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", os.devnull]
        # The shell's last words tell how the program ended; cat keeps the screen.
        shell = f"{shlex.join(command)}; echo left with $?; cat"
        self._run("new-session", "-d", "-x", str(columns), "-y", "30", shell)

    def _run(self, *arguments: str) -> str:
        return subprocess.run([*self._tmux, *arguments], check=True, capture_output=True, text=True).stdout

    def type(self, *keys: str) -> None:
        """Keys by tmux's names; anything else is typed as it is."""
        self._run("send-keys", *keys)

    def ask(self, text: str) -> None:
        self._run("send-keys", "-l", text)
        self._run("send-keys", "Enter")

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    @property
    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    @property
    def everything(self) -> str:
        """With what has scrolled away, folded lines joined."""
        return self._run("capture-pane", "-p", "-J", "-S", "-")

    def wait(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > end:
                pytest.fail(f"waited in vain for {what}; the screen:\n{self.screen}")
            time.sleep(0.05)

    def wait_for(self, text: str, times: int = 1) -> None:
        self.wait(lambda: self.everything.count(text) >= times, repr(text))

    def wait_for_prompt(self) -> None:
        """Until the last line waits for a turn."""
        self.wait(lambda: self.screen.rstrip().splitlines()[-1:] == [">"], "a prompt")

    def kill(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    checkpoint = write_checkpoint(folder / "checkpoint", CheckpointConfig())
    convert(checkpoint, folder / "tiny.gguf", type="f32")
    return folder / "tiny.gguf"


@pytest.fixture
def terminal(tmp_path: Path, model: Path) -> Iterator[Callable[..., Terminal]]:
    """``terminal(columns, *flags)`` -> a terminal with ``dgemma run`` on the model."""
    opened: list[Terminal] = []

    def start(columns: int, *flags: str) -> Terminal:
        opened.append(Terminal(tmp_path / "tmux", columns, [*DGEMMA, "run", "-m", str(model), "-s", "7", *flags]))
        return opened[0]

    yield start
    for each in opened:
        each.kill()


Start = Callable[..., Terminal]


def test_a_conversation(terminal: Start, tmp_path: Path) -> None:
    chat = terminal(80, "-cnv", "-n", "16")
    chat.wait_for("/help lists the commands")
    chat.wait_for_prompt()
    chat.ask("hello there")
    chat.wait_for("tokens/s")
    chat.wait_for_prompt()
    assert "> hello there\n" in chat.everything
    chat.ask("one line\\")  # the backslash makes the next one part of it
    chat.ask("and another")
    chat.wait_for("tokens/s", times=2)
    assert "> one line\n  and another\n" in chat.everything
    chat.ask("/nothing")
    chat.wait_for("there is no command /nothing: /help lists them")
    chat.ask(f"/save {tmp_path / 'chat'}")
    chat.wait_for("saved as")
    chat.ask("/clear")
    chat.ask(f"/load {tmp_path / 'chat'}")
    chat.wait_for("4 messages")
    chat.wait_for_prompt()
    chat.type("C-d")
    chat.wait_for("left with 0")


def test_keys(terminal: Start) -> None:
    chat = terminal(80, "-cnv", "-n", "16")
    chat.wait_for_prompt()
    chat.type("/st", "Tab")
    chat.wait_for("> /stats")
    chat.type("Enter")
    chat.wait_for("re-encodings")
    chat.wait_for_prompt()
    chat.type("above", "M-Enter", "below", "Enter")
    chat.wait_for("tokens/s")
    assert "> above\n  below\n" in chat.everything
    chat.wait_for_prompt()
    chat.type("Up")
    chat.wait_for("below", times=2)  # the history has the turn
    chat.type("C-c")
    chat.wait_for_prompt()
    chat.type("C-c")
    chat.wait_for("Ctrl-D or /exit leaves")
    chat.ask("/exit")
    chat.wait_for("left with 0")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_canvas_can_be_resized_and_interrupted(terminal: Start, columns: int) -> None:
    chat = terminal(columns, "-cnv", "-n", "100", "--diffusion-visual", *ENDLESS)
    chat.wait_for_prompt()
    chat.ask("how are you")
    chat.wait_for("/1000000")
    chat.type("typed too early")  # it is no part of the answer
    chat.resize(columns + 20, 20)
    chat.wait(lambda: "/1000000" in chat.screen, "the canvas after it was widened")
    chat.resize(max(columns // 2, 36), 24)
    chat.wait(lambda: "/1000000" in chat.screen, "the canvas after it was narrowed")
    assert "typed too early" not in chat.screen
    chat.type("C-c")
    chat.wait_for("interrupted")
    chat.wait_for_prompt()
    seen = chat.everything
    assert "> how are you\n" in seen
    assert "/1000000" not in seen  # no frame is left behind
    chat.ask("/stats")
    chat.wait_for("re-encodings")
    chat.type("C-d")
    chat.wait_for("left with 0")


def test_one_answer_interrupted(terminal: Start) -> None:
    run = terminal(80, "-p", "hello", *ENDLESS, "--diffusion-visual")
    run.wait_for("/1000000")
    run.type("C-c")
    run.wait_for("left with 130")
    assert "interrupted, seed 7" in run.everything


def test_without_a_terminal(model: Path) -> None:
    turns = subprocess.run(
        [*DGEMMA, "run", "-m", str(model), "-cnv", "-n", "16", "-s", "7", "--diffusion-visual"],
        input="hello\n/seed\n",
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert "\x1b[" not in turns.stdout + turns.stderr
    assert "the last answer's seed was 7" in turns.stderr
    assert turns.stdout.endswith("\n")


def test_missing_model_and_wrong_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        result = subprocess.run(
            [*DGEMMA, "run", "-m", str(path), "-p", "hi"], capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)


def test_the_demonstration(tmp_path: Path) -> None:
    """The puzzle is seen above the canvas while that is denoised, and both stay when it is done."""
    demo = Terminal(tmp_path / "tmux", 80, [*DGEMMA, "demo", "--puzzle", SUDOKU, "-s", "1"])
    try:
        demo.wait_for("block 1")
        assert demo.screen.startswith("1 2 . | 4 . 6")
        demo.wait_for("left with 0")
        assert demo.everything.count("1 2 . | 4 . 6") == 1
        assert "Solved: every row, column and box has each digit once." in demo.everything
        assert "block 1" not in demo.everything
    finally:
        demo.kill()
