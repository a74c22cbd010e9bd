"""The commands of a chat: ``/help`` and its kin."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.filesize import decimal

from ..errors import RequestError
from .options import Thinking

if TYPE_CHECKING:
    from .chat_state import ChatState, Show

_KEYS = """\
Enter sends; Alt-Enter, or a backslash before Enter, begins another line.
Ctrl-C stops the answer, Ctrl-D leaves."""


class Leave(Exception):
    """The chat is over."""


class Command(NamedTuple):
    argument: str
    help: str
    run: Callable[[ChatState, str, Show], str]


def is_command(line: str) -> bool:
    """Whether a line is meant for the program; "/usr/bin is a folder" is for the model."""
    return re.fullmatch(r"/[A-Za-z?]*", line.split(maxsplit=1)[0] if line.strip() else "") is not None


def execute(line: str, state: ChatState, show: Show) -> str:
    """Obeys a command; returns what there is to say about it. Raises ``RequestError`` for an unknown one."""
    name, _, argument = line.strip().partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise RequestError(f"there is no command {name}: /help lists them")
    argument = argument.strip()
    if argument and not command.argument:
        raise RequestError(f"{name} takes nothing after it")
    return command.run(state, argument, show)


def _help(state: ChatState, argument: str, show: Show) -> str:
    rows = [(f"{name} {command.argument}", command.help) for name, command in COMMANDS.items()]
    width = max(len(usage) for usage, _ in rows)
    return "\n".join([*(f"{usage:{width}}  {help}" for usage, help in rows), "", _KEYS])


def _clear(state: ChatState, argument: str, show: Show) -> str:
    state.clear()
    return "the conversation is forgotten"


def _system(state: ChatState, argument: str, show: Show) -> str:
    if argument:
        state.change(system=argument)
        return "the system prompt counts from the next answer on"
    return state.settings.system or "there is no system prompt: /system TEXT gives one"


def _save(state: ChatState, argument: str, show: Show) -> str:
    path = _path(state, argument)
    state.save(path)
    return f"saved as {path}"


def _load(state: ChatState, argument: str, show: Show) -> str:
    path = _path(state, argument)
    state.load(path)
    return f"loaded {path}: {len(state.messages)} messages"


def _path(state: ChatState, argument: str) -> Path:
    if argument:
        return Path(argument).expanduser()
    if state.settings.prompt_cache is None:
        raise RequestError("name a file")
    return state.settings.prompt_cache


def _stats(state: ChatState, argument: str, show: Show) -> str:
    cache, totals = state.conversation.stats, state.totals
    rows = {
        "tokens encoded": f"{cache.encoded_tokens:,}",
        "tokens reused": f"{cache.reused_tokens:,}",
        "re-encodings": _reencodings(cache.reencodings),
        "context": f"{len(state.conversation.ids):,} of {state.engine.n_ctx:,} tokens",
        "snapshot": decimal(cache.snapshot_bytes),
        "answers": f"{totals.answers:,}",
        "tokens": f"{totals.tokens:,}",
        "steps": f"{totals.steps:,}",
        "tokens a second": f"{totals.tokens_per_second:.2f}",
    }
    return "\n".join(f"{name:16} {value}" for name, value in rows.items())


def _reencodings(count: int) -> str:
    """How often a turn began from nothing, and why that is."""
    return f"{count:,} (turns read again whole: the sliding window's ring had moved on)" if count else "0"


def _regen(state: ChatState, argument: str, show: Show) -> str:
    return state.regenerate(show).summary()


def _seed(state: ChatState, argument: str, show: Show) -> str:
    if not argument:
        return "no answer yet" if state.last_seed is None else f"the last answer's seed was {state.last_seed}"
    if not re.fullmatch(r"[0-9]{1,19}", argument):
        raise RequestError(f"a seed is a whole number, not {argument}")
    state.change(seed=int(argument))
    return f"the next answer's seed is {int(argument)}"


def _thinking(state: ChatState, argument: str, show: Show) -> str:
    if argument:
        if argument not in Thinking.__members__:
            raise RequestError(f"/thinking is {' or '.join(Thinking.__members__)}, not {argument}")
        state.change(thinking=Thinking(argument))
    return f"thinking is {state.settings.thinking.value}"


def _exit(state: ChatState, argument: str, show: Show) -> str:
    raise Leave


COMMANDS = {
    "/help": Command("", "this list", _help),
    "/clear": Command("", "forget the conversation", _clear),
    "/system": Command("[TEXT]", "show or set how the model should behave", _system),
    "/save": Command("FILE", "save the conversation with its cache", _save),
    "/load": Command("FILE", "go on with a saved one", _load),
    "/stats": Command("", "what was encoded, reused and made", _stats),
    "/regen": Command("", "answer again, with the next seed", _regen),
    "/seed": Command("[N]", "show or set the seed", _seed),
    "/thinking": Command("on|off", "let the model think first; hide: unseen", _thinking),
    "/exit": Command("", "leave", _exit),
}
