"""What ``tool_choice`` can honestly mean for a model that is not held to a grammar.

An answer can be made to begin in a certain way: the prompt goes on with those tokens. So a call can be demanded, and
its function; that the arguments fit the function's schema cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import RequestError

_CALL = "<|tool_call>call:"


class ToolUse(NamedTuple):
    """``offered``: the tools that the model is told of. ``opening``: how its answer begins. ``calls``: may it call."""

    offered: Sequence[Mapping[str, Any]] | None
    opening: str = ""
    calls: bool = True


def tool_use(tools: Sequence[Mapping[str, Any]] | None, choice: object) -> ToolUse:
    """ "auto" or None: the model decides. "none": it is told of no tools, and what looks like a call is text.
    "required": its answer begins as a call. A function by name: its answer begins as a call of that function.

    Raises ``RequestError`` for anything else, and where there are no tools to choose from.
    """
    if choice is None or choice == "auto":
        return ToolUse(tools)
    if choice == "none":
        return ToolUse(None, calls=False)
    name = "" if choice == "required" else _function(choice)
    names = [tool["function"]["name"] for tool in checked_tools(tools) or ()]
    if not names:
        raise RequestError("tool_choice demands a call, but there are no tools")
    if name and name not in names:
        raise RequestError(f"tool_choice names {name!r}, which is not among the tools: {', '.join(names)}")
    return ToolUse(tools, f"{_CALL}{name}{{" if name else _CALL)


def checked_tools(tools: Any) -> Sequence[Mapping[str, Any]] | None:
    """The tools, None where there are none; ``RequestError`` where one has not the form of OpenAI's functions."""
    if not isinstance(tools, Sequence | None) or isinstance(tools, str):
        raise RequestError(f"tools must be a list, not {tools!r:.80}")
    for index, tool in enumerate(tools or ()):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise RequestError(f'tools[{index}] must be {{"type": "function", "function": {{"name": …}}}}')
    return tools or None


def _function(choice: object) -> str:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RequestError(
            'tool_choice must be "auto", "none", "required" or {"type": "function", "function": {"name": …}}, '
            f"not {choice!r:.80}"
        )
    return str(function["name"])
