"""An engine that answers as a test tells it to, with a session that counts what it is given to encode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dgemma import BlockEvent, ContextError, DoneEvent, FileError, GenerationConfig, GenerationStats, StepEvent
from dgemma.events import Event

# The tokens of Gemma 4 that mark the parts of a conversation, and enough letters to talk.
MARKERS = ["<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>"]
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", *MARKERS, "<tool_response|>", '<|"|>']
TEMPLATE = """{{- bos_token -}}
{%- for m in messages -%}
<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<turn|>
{%- endfor -%}
{{- '<|turn>model\n' if add_generation_prompt -}}{{- 'think' if enable_thinking -}}"""


def vocabulary() -> dict[str, Any]:
    """The tokenizer's keys of a GGUF file: a character a token."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["▁", "\n", *map(chr, range(ord("!"), ord("~") + 1))]
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": [*CONTROL, *byte_tokens, *pieces],
        "tokenizer.ggml.token_type": np.array([3] * len(CONTROL) + [6] * 256 + [1] * len(pieces), dtype=np.int32),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.chat_template": TEMPLATE,
    }


def step(block: int, number: int = 1) -> StepEvent:
    canvas, accepted, entropy = np.zeros(4, np.int32), np.zeros(4, np.bool_), np.zeros(4, np.float32)
    return StepEvent(block, number, 0.8, canvas, accepted, entropy, canvas)


def answer(*blocks: Sequence[int], reason: Any = "stop") -> list[Event | BaseException]:
    """The events of an answer of these blocks, one step each."""
    events: list[Event | BaseException] = []
    for number, tokens in enumerate(blocks):
        events += [step(number), BlockEvent(number, list(tokens))]
    stats = GenerationStats(0, sum(map(len, blocks)), len(blocks), len(blocks), 0.5, 0.3, 2.0)
    return [*events, DoneEvent(reason, None, stats)]


@dataclass
class Snapshot:
    n_past: int
    n_bytes: int = 1000


class ScriptedSession:
    """A cache that only counts. Going back by more than ``ring`` tokens needs a snapshot."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self.n_past = 0

    def prefill(self, tokens: Sequence[int]) -> None:
        if self.n_past + len(tokens) > self._engine.n_ctx:
            raise ContextError(f"{len(tokens)} tokens do not fit: the context has {self._engine.n_ctx}")
        self.n_past += len(tokens)
        self._engine.encoded += tokens

    def truncate(self, n: int) -> None:
        if 0 < n < self.n_past - self._engine.ring:
            raise ContextError("the ring has moved on")
        self.n_past = n

    def snapshot(self) -> Snapshot:
        return Snapshot(self.n_past)

    def restore(self, snapshot: Snapshot) -> None:
        self.n_past = snapshot.n_past

    def generate(
        self, tokens: Sequence[int], max_new_tokens: int, seed: int, config: GenerationConfig | None
    ) -> Iterator[Event]:
        self._engine.calls.append({"n": max_new_tokens, "seed": seed, "config": config})
        finished: list[int] = []
        for event in self._engine.scripts.pop(0):
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, StepEvent) and finished:
                self.n_past += len(finished)
                self._engine.encoded += finished
                finished = []
            if isinstance(event, BlockEvent):
                finished = event.tokens
            yield event

    def save(self, path: str | Path, note: str) -> None:
        if self._engine.full_disk:
            raise FileError(f"{path}: cannot be written: No space left on device")
        Path(path).write_text(json.dumps([self._engine.name, self.n_past, note]))

    def load(self, path: str | Path) -> str:
        try:
            name, n_past, note = json.loads(Path(path).read_text())
        except (OSError, ValueError):
            raise FileError(f"{path}: is no saved session") from None
        if name != self._engine.name:
            raise FileError(f"{path}: was saved with another model")
        self.n_past = n_past
        return str(note)


class ScriptedEngine:
    """Plays ``scripts``, one for each answer; notes what was encoded and how it was called."""

    def __init__(self, *scripts: list[Event | BaseException], n_ctx: int = 4096, name: str = "toy") -> None:
        self.scripts = list(scripts)
        self.n_ctx = n_ctx
        self.name = name
        self.ring = 8
        self.full_disk = False
        self.encoded: list[int] = []
        self.calls: list[dict[str, Any]] = []
        self.config = GenerationConfig()
        self.info = SimpleNamespace(name=name)
        self.plan = SimpleNamespace(layers=[], head="CPU", memory={"CPU": {}})

    def session(self) -> ScriptedSession:
        return ScriptedSession(self)

    def __enter__(self) -> ScriptedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass
