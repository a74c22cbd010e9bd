"""``dgemma run``: a prompt in, an answer out. Text goes to stdout, everything else to stderr."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

import dgemma

from ..errors import Cancelled, RequestError

if TYPE_CHECKING:
    from ..events import Event
    from .answer import Answer

INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended


def run(
    model: Annotated[str, typer.Option("-m", "--model", metavar="FILE", help="The GGUF file.")],
    prompt: Annotated[
        str | None, typer.Option("-p", "--prompt", metavar="TEXT", help="The prompt; from stdin if it is piped there.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("-n", "--n-predict", min=1, metavar="N", help="At most this many tokens of answer.")
    ] = 512,
    seed: Annotated[
        int, typer.Option("-s", "--seed", min=-1, metavar="N", help="Same seed, same answer; -1: a new one each time.")
    ] = -1,
    gpu_layers: Annotated[
        int, typer.Option("-ngl", "--n-gpu-layers", min=-1, metavar="N", help="Layers on the GPU; -1: all.")
    ] = -1,
    threads: Annotated[
        int | None, typer.Option("-t", "--threads", min=1, metavar="N", help="CPU threads; as many as cores if absent.")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "-c", "--ctx-size", min=1, metavar="N", help="Room for N tokens, prompt and answer; 8192 if absent."
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option("-sys", "--system-prompt", metavar="TEXT", help="How the model should behave.")
    ] = None,
    thinking: Annotated[bool, typer.Option("--thinking", help="Let the model think before it answers.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Give the model the prompt as it is, without template.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Answer one prompt.

    The answer appears block by block on stdout, a summary on stderr. Ctrl-C stops it and keeps what has arrived.
    """
    from .answer import Answer

    if raw and (system is not None or thinking):
        raise typer.BadParameter("--raw leaves out the chat template, which -sys and --thinking need")
    text = _prompt_text(prompt)
    tokenizer = dgemma.Tokenizer.from_gguf(model)
    tokens = tokenizer.encode(text if raw else _chat(tokenizer, text, system, thinking))
    seed = secrets.randbits(32) if seed < 0 else seed
    answer = Answer(tokenizer, prompt_tokens=len(tokens))
    # Without -c the engine decides: it knows what the model was made for.
    room: dict[str, Any] = {} if context is None else {"n_ctx": context}
    with dgemma.Engine(model, **room, n_gpu_layers=gpu_layers, n_threads=threads) as engine:
        _receive(engine.generate(tokens, max_new_tokens=max_new_tokens, seed=seed), answer, show=not as_json)
    if as_json:
        report = {"text": answer.text, "tokens": answer.tokens, "reason": answer.reason, "seed": seed}
        typer.echo(json.dumps({**report, "stats": answer.stats()}, ensure_ascii=False))
    else:
        typer.echo(f"{answer.summary()}, seed {seed}", err=True)
    if answer.reason == "cancelled":
        raise typer.Exit(INTERRUPTED)


def _prompt_text(prompt: str | None) -> str:
    """The prompt of ``-p``, or all of a piped stdin."""
    if prompt is None:
        if sys.stdin.isatty():
            raise typer.BadParameter("give a prompt with -p, or pipe one in")
        try:
            prompt = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"the prompt on stdin is not UTF-8: byte {error.start} is no part of it") from None
        prompt = prompt.removesuffix("\n")  # the line end that echo and editors put there
    if not prompt.strip():
        raise RequestError("the prompt is empty")
    return prompt


def _chat(tokenizer: dgemma.Tokenizer, text: str, system: str | None, thinking: bool) -> str:
    from ..template import ChatTemplate

    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return ChatTemplate.from_tokenizer(tokenizer).render(messages, enable_thinking=thinking)


def _receive(events: Iterator[Event], answer: Answer, show: bool) -> None:
    """Collect all events, printing text as it comes. Ctrl-C ends the answer, not the program."""
    try:
        for event in events:
            _print(answer.add(event), show)
    except (KeyboardInterrupt, Cancelled):
        pass  # the answer has no DoneEvent and so counts as cancelled
    _print(answer.finish(), show)
    if answer.text and not answer.text.endswith("\n"):
        _print("\n", show)


def _print(text: str, show: bool) -> None:
    if show and text:
        typer.echo(text, nl=False)
