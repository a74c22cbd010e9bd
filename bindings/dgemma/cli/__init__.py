"""The command line: ``dgemma SUBCOMMAND``. Answers go to stdout, everything else to stderr.

Each sub-command is a function in a module of its own, registered at the end of this file. Those modules import the
engine and the converter inside the function, so that ``--help`` is quick and works where the engine does not.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import Error

FAILED, INTERRUPTED = 1, 130  # the latter as shells expect; and 2 for a wrong command line, which typer sees to


class _Group(TyperGroup):
    """Turns what a sub-command raises on purpose into one line on stderr and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's Context is click's
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", UserWarning)
                warnings.showwarning = _once()
                return super().invoke(ctx)
        except Error as error:
            typer.echo(f"dgemma: {error}", err=True)
            raise typer.Exit(FAILED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has what it wanted: typer ends without a word
                raise
            typer.echo(f"dgemma: {error.filename or 'the output'}: {error.strerror}", err=True)
            _drop_output()
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            typer.echo("dgemma: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="dgemma",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # the one mode that refills paragraphs
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _once() -> Callable[..., None]:
    """Shows what the engine warns of, as a line like those of errors; the same words once, whatever the engines."""
    said: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            typer.echo(f"dgemma: {message}", err=True)

    return show


def _drop_output() -> None:
    """What stdout still holds would fail once more when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The entry point of the ``dgemma`` command."""
    app(prog_name="dgemma")


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"dgemma {version('dgemma')}")
    except PackageNotFoundError:
        typer.echo("dgemma (not installed)")
    raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Convert and run DiffusionGemma as GGUF.

    Exit codes: 0 done, 1 refused or failed (one line on stderr says why), 2 wrong command line, 130 interrupted.
    """


# The modules of the sub-commands come after what they might use.
from . import bench, compare, convert, demo, eval, imatrix, inspect, quantize, refused, run  # noqa: E402

app.command("convert")(convert.convert)
app.command("quantize")(quantize.quantize)
app.command("imatrix")(imatrix.imatrix)
app.command("run", cls=refused.RunCommand)(run.run)
app.command("inspect")(inspect.inspect)
app.command("bench")(bench.bench)
app.command("compare")(compare.compare)
app.command("eval")(eval.evaluate)
app.command("demo")(demo.demo)
