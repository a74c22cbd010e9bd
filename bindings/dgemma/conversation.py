"""A conversation's cache: each turn encodes only what is new.

A turn is given the ids of the whole conversation so far. The longest common prefix with what the cache holds stays; the
rest is encoded. Going back (a thought was dropped from history, an answer is to be made again) is a truncation while
the rings of the sliding layers still reach there, else the snapshot of the last turn's border, else a new encoding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import ContextError, FileError, RequestError
from .events import BlockEvent, Event, GenerationConfig

if TYPE_CHECKING:
    from ._core import Snapshot
    from .engine import Engine


@dataclass
class ConversationStats:
    """What the turns of a conversation took, in tokens."""

    encoded_tokens: int = 0  # that went through the encoder
    reused_tokens: int = 0  # that a turn found in the cache
    reencodings: int = 0  # times that neither ring nor snapshot reached back, so that a turn began from nothing
    snapshot_bytes: int = 0  # host memory that the last border takes


class Conversation:
    """A session's cache and the ids it holds. One answer at a time."""

    def __init__(self, engine: Engine) -> None:
        self._session = engine.session()
        self._border: Snapshot | None = None
        self._open_ended = False  # whether the last prompt had an end that the next one will not have
        self.ids: list[int] = []
        self.stats = ConversationStats()

    def answer(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int = 256,
        seed: int = 0,
        config: GenerationConfig | None = None,
        settled: int | None = None,
    ) -> Iterator[Event]:
        """Answers the whole conversation so far, ``prompt``; the events are those of ``Session.generate``.

        settled: how many ids of ``prompt`` the next turn's prompt will begin with (``dgemma.chat.settled_length``), all
        of them if absent. The place to go back to is remembered there.

        Raises ``ContextError`` if the prompt does not fit; the cache then holds the common prefix. However an answer
        ends (its last event, closing the iterator, Ctrl-C), ``ids`` is what the cache holds.
        """
        ids = list(prompt)
        if not ids:
            raise RequestError("the prompt is empty; there is nothing to answer")
        self._encode(ids, len(ids) if settled is None else settled)
        pending: list[int] = []
        try:
            for event in self._session.generate((), max_new_tokens, seed, config):
                self._committed(pending)
                if isinstance(event, BlockEvent):
                    pending = event.tokens
                yield event
        finally:
            self._committed(pending)

    def save(self, path: str | os.PathLike[str], extra: dict[str, Any] | None = None) -> None:
        """Cache, ids and ``extra`` (anything that JSON holds) as one file, tied to this very model file.

        Where the next turn's prompt will leave out the end of the last one, the file ends at the settled part: nothing
        behind it could be used. Raises ``FileError`` if it cannot be written; nothing half-written is left.
        """
        if self._open_ended and self._border is not None and self._restore_border(len(self.ids)):
            self.ids = self.ids[: self._session.n_past]
        self._session.save(path, json.dumps({"ids": self.ids, "extra": extra or {}}))

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Goes on from a saved conversation; returns its ``extra``.

        Raises ``FileError`` or ``ContextError`` as ``Session.load`` does.
        """
        self._border = None
        try:
            note = json.loads(self._session.load(path))
            ids, extra = note["ids"], note["extra"]
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, RequestError):
                raise
            self._session.truncate(0)
            raise FileError(f"{os.fspath(path)}: is damaged: it does not say which tokens it holds") from None
        finally:
            self.ids = self.ids[: self._session.n_past]
        if len(ids) != self._session.n_past:
            self._session.truncate(0)
            raise FileError(f"{os.fspath(path)}: is damaged: it names {len(ids)} tokens for a cache of another length")
        self.ids = ids
        return dict(extra)

    def _encode(self, prompt: list[int], settled: int) -> None:
        """Makes the cache hold exactly ``prompt``, and remembers the place after ``settled`` ids of it."""
        self._go_back(_common_prefix(self.ids, prompt))
        self.stats.reused_tokens += len(self.ids)
        if len(self.ids) <= settled:  # else the last border still is the place: this is the same turn again
            self._append(prompt[len(self.ids) : settled])
            self._border = self._session.snapshot()
            self.stats.snapshot_bytes = self._border.n_bytes
        self._append(prompt[len(self.ids) :])
        self._open_ended = settled < len(prompt)

    def _append(self, new: list[int]) -> None:
        if not new:
            return
        try:
            self._session.prefill(new)
            self.stats.encoded_tokens += len(new)
        finally:  # stopped half-way, the cache is as before or empty
            self.ids = (self.ids + new)[: self._session.n_past]

    def _go_back(self, n: int) -> None:
        """Forgets what follows position n, and more where the cache cannot stop there."""
        if n == len(self.ids):
            return
        if not self._truncate(n) and not self._restore_border(n):
            self._session.truncate(0)
            self.stats.reencodings += 1
        self.ids = self.ids[: self._session.n_past]

    def _truncate(self, n: int) -> bool:
        try:
            self._session.truncate(n)
        except ContextError:
            return False
        return True

    def _restore_border(self, n: int) -> bool:
        if self._border is None or self._border.n_past > n:
            return False
        try:
            self._session.restore(self._border)
        except ContextError:
            return False
        return True

    def _committed(self, block: list[int]) -> None:
        """Follows the cache: a finished block enters it when the next one begins."""
        if self._session.n_past > len(self.ids):
            self.ids = self.ids + block
            self.stats.encoded_tokens += len(block)
        self.ids = self.ids[: self._session.n_past]


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    for i, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return i
    return min(len(a), len(b))
