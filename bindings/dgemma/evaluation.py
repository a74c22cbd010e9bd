"""How often a model is right: questions with known answers, put to one GGUF file after the other.

A question is a line of a JSONL file: {"prompt": …, "answer": …} is right where the answer comes word for word (space at
its ends aside), {"prompt": …, "checker": "sudoku"} where the named rules are kept; the prompt is then the puzzle.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import sudoku
from .chat import MessageParser, history_ids
from .engine import Engine
from .errors import FileError, RequestError
from .events import BlockEvent, DoneEvent, StepEvent
from .template import ChatTemplate
from .tokenizer import Tokenizer

EXACT = "exact"
_Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


@dataclass(frozen=True)
class Question:
    prompt: str  # what the user says
    answer: str | None  # None where a checker needs none
    checker: str = EXACT

    def is_right(self, answer: str) -> bool:
        return CHECKERS[self.checker](self, answer)


CHECKERS: Mapping[str, Callable[[Question, str], bool]] = {
    EXACT: lambda question, answer: answer.strip() == (question.answer or "").strip(),
    "sudoku": lambda question, answer: sudoku.wrong(sudoku.parse(question.prompt), answer) is None,
}


@dataclass(frozen=True)
class Attempt:
    """One question put to one model."""

    text: str
    right: bool
    steps: int  # over all canvases
    stopped_early: bool  # no canvas took every step that it may
    new_tokens: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """What one model made of all the questions."""

    model: str
    file_type: str
    n_bytes: int
    attempts: tuple[Attempt, ...]

    @property
    def right(self) -> int:
        return sum(attempt.right for attempt in self.attempts)

    @property
    def rate(self) -> float:
        return self.right / len(self.attempts)

    @property
    def interval(self) -> tuple[float, float]:
        """Between these the rate lies with 95 % confidence."""
        return wilson_interval(self.right, len(self.attempts))

    @property
    def mean_steps(self) -> float:
        return sum(attempt.steps for attempt in self.attempts) / len(self.attempts)

    @property
    def stopped_early(self) -> float:
        return sum(attempt.stopped_early for attempt in self.attempts) / len(self.attempts)

    @property
    def tokens_per_second(self) -> float:
        seconds = sum(attempt.seconds for attempt in self.attempts)
        return sum(attempt.new_tokens for attempt in self.attempts) / seconds if seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything, for a program."""
        return {
            "model": self.model,
            "file_type": self.file_type,
            "n_bytes": self.n_bytes,
            "questions": len(self.attempts),
            "right": self.right,
            "rate": self.rate,
            "interval": list(self.interval),
            "mean_steps": self.mean_steps,
            "stopped_early": self.stopped_early,
            "tokens_per_second": self.tokens_per_second,
            "attempts": [asdict(attempt) for attempt in self.attempts],
        }


def wilson_interval(right: int, of: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 %: unlike mean ± error it stays within 0 … 1 and is no point at 0 or 1."""
    share, spread = right / of, _Z * _Z / of
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def load_questions(path: str | os.PathLike[str], limit: int | None = None) -> list[Question]:
    """The first ``limit`` questions of a JSONL file, or all. Raises ``FileError`` naming file, line and field."""
    name = os.fspath(path)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FileError(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FileError(f"{name}: is not UTF-8 text") from None
    questions = [_question(line, f"{name}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise FileError(f"{name}: no question in it: each line should be an object with prompt and answer")
    return questions[:limit]


def _question(line: str, where: str) -> Question:
    try:
        fields = json.loads(line)
    except ValueError:
        raise FileError(f"{where}: is no JSON") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("prompt"), str):
        raise FileError(f"{where}: no prompt: each line should be an object with prompt and answer")
    answer, checker = fields.get("answer"), fields.get("checker", EXACT)
    if not isinstance(checker, str) or checker not in CHECKERS:
        raise FileError(f"{where}: checker {checker!r} is not known: there are {' and '.join(CHECKERS)}")
    if not (isinstance(answer, str) or (answer is None and checker != EXACT)):
        raise FileError(f"{where}: no answer, with which the model's could be compared")
    if checker == "sudoku":
        try:
            sudoku.parse(fields["prompt"])
        except RequestError as error:
            raise FileError(f"{where}: {error}") from None
    return Question(fields["prompt"], answer, checker)


def evaluate(
    model: str | os.PathLike[str],
    questions: Sequence[Question],
    *,
    seed: int = 0,
    max_new_tokens: int | None = None,
    n_gpu_layers: int = -1,
    n_threads: int | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> Evaluation:
    """Put every question to a model, each in a conversation of its own; question i has the seed ``seed`` + i.

    max_new_tokens: None = one canvas. progress: called with the number of questions answered, of all, and the model's
    path.
    Raises ``RequestError`` where there is no question, and what ``Engine`` raises.
    """
    if not questions:
        raise RequestError("there is no question to ask")
    tokenizer = Tokenizer.from_gguf(Path(model).expanduser())
    with Engine(model, n_gpu_layers=n_gpu_layers, n_threads=n_threads) as engine:
        most = max_new_tokens or engine.info.canvas_length
        attempts = []
        for number, question in enumerate(questions):
            attempts.append(_attempt(engine, tokenizer, question, seed + number, most))
            if progress:
                progress(number + 1, len(questions), os.fspath(model))
        return Evaluation(os.fspath(model), engine.info.file_type, engine.info.n_bytes, tuple(attempts))


def _attempt(engine: Engine, tokenizer: Tokenizer, question: Question, seed: int, most: int) -> Attempt:
    parser, last_steps, done = MessageParser(tokenizer), [0], None
    for event in engine.generate(chat_ids(tokenizer, question.prompt), max_new_tokens=most, seed=seed):
        if isinstance(event, StepEvent):
            last_steps[-1] = event.step
        elif isinstance(event, BlockEvent):
            parser.feed(event.tokens)
            last_steps.append(0)
        elif isinstance(event, DoneEvent):
            done = event.stats
    parser.finish()
    if done is None:
        raise RequestError("the answer was interrupted")
    text = parser.message.content
    return Attempt(
        text=text,
        right=question.is_right(text),
        steps=done.steps,
        stopped_early=max(last_steps) < engine.config.max_denoising_steps,
        new_tokens=done.new_tokens,
        seconds=done.wall_seconds,
    )


def chat_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a conversation that begins with ``prompt``, up to where the model answers."""
    return history_ids(ChatTemplate.from_tokenizer(tokenizer), tokenizer, [{"role": "user", "content": prompt}])
