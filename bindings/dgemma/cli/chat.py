"""``dgemma run -cnv``: turn after turn, from a terminal or from a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ..conversation import Conversation
from ..errors import Error
from ..template import ChatTemplate
from . import FAILED, INTERRUPTED, chat_commands
from .chat_input import MARK, LineReader, line_reader, unechoed_keys
from .chat_state import ChatState
from .display import Display

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer
    from .settings import Settings


def chat_with(tokenizer: Tokenizer, settings: Settings, first: str | None) -> int:
    """Chats until the input ends; ``first`` is the first turn. Returns the exit code."""
    template = ChatTemplate.from_tokenizer(tokenizer)
    with settings.open_engine() as engine:
        state = ChatState(engine, Conversation(engine), tokenizer, template, settings)
        cache = settings.prompt_cache
        if cache is not None and cache.exists():
            state.load(cache)
            _say(f"going on with {cache}: {len(state.messages)} messages")
        reader = line_reader(list(chat_commands.COMMANDS))
        if reader.greets:
            _say(f"{engine.info.name or settings.model}, {engine.n_ctx:,} tokens of context. /help lists the commands.")
        with unechoed_keys():
            code = _turns(state, reader, first)
        if cache is not None:
            state.save(cache)
    return code


def _turns(state: ChatState, reader: LineReader, first: str | None) -> int:
    """All turns; returns the exit code. An error is one sentence, and the chat goes on.

    Nobody sits at a pipe: there, a turn that failed makes the code 1, and Ctrl-C means the program.
    """
    code = 0
    line = first
    try:
        while True:
            try:
                if line is not None and line.strip():
                    _say(_turn(state, line, is_prompt=line is first))
                    if state.interrupted and not reader.greets:
                        return INTERRUPTED
                line = reader.read()
            except KeyboardInterrupt:
                if not reader.greets:
                    return INTERRUPTED
                line = None
            except Error as error:
                line = None
                code = 0 if reader.greets else FAILED
                _say(f"dgemma: {error}")
    except (EOFError, chat_commands.Leave):
        return code


def _turn(state: ChatState, line: str, is_prompt: bool) -> str:
    """Obeys a command or answers; returns what there is to say about it."""
    with Display(state.tokenizer, state.settings, state.engine, f"{MARK}{line}\n") as display:
        if not is_prompt and chat_commands.is_command(line):
            return chat_commands.execute(line, state, display.show)
        return state.ask(line, display.show).summary()


def _say(text: str) -> None:
    """For the person, beside the conversation; a terminal's lines are broken between words."""
    console = Console(stderr=True)
    console.print(Text(text, style="dim"), soft_wrap=not console.is_terminal)
