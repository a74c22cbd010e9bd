"""Stop strings: an answer ends before the first of them, wherever it is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on until one of ``stops`` is complete; text that may be the beginning of one waits.

    The stop string that is complete first ends the text before its own first character. ``found`` is that string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """What can be shown now; nothing more once a stop string was found."""
        if self.found is not None:
            return ""
        text = self._held + text
        matches = [(text.index(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in text]
        if matches:
            end, minus_length, self.found = min(matches)
            self._held = ""
            return text[: end + minus_length]
        shown = len(text) - self._longest_beginning(text)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """No more text: what waited was no stop string."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self, text: str) -> int:
        """The length of the longest end of ``text`` with which a stop string begins."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
