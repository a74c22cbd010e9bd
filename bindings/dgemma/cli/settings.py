"""What the flags of ``dgemma run`` ask for, checked and gathered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .devices import plan_line
from .options import Thinking

if TYPE_CHECKING:
    from ..engine import Engine
    from ..events import GenerationConfig


@dataclass(frozen=True)
class Settings:
    """Everything but the prompt."""

    model: str
    n_ctx: int | None = None
    devices: Mapping[str, Any] = field(default_factory=dict)  # arguments of Engine: which weights go where
    n_threads: int | None = None
    system: str | None = None
    thinking: Thinking = Thinking.off
    raw: bool = False
    prompt_cache: Path | None = None
    max_new_tokens: int = 512
    seed: int = 0
    sampler: Mapping[str, Any] | None = None  # fields of GenerationConfig in place of the file's
    visual: bool = False
    visual_interval: int = 1
    as_json: bool = False
    color: bool = True

    def open_engine(self) -> Engine:
        import dgemma

        # Without -c the engine decides: it knows what the model was made for.
        room: dict[str, Any] = {} if self.n_ctx is None else {"n_ctx": self.n_ctx}
        engine = dgemma.Engine(self.model, **room, **self.devices, n_threads=self.n_threads)
        if line := plan_line(engine.plan):
            typer.echo(line, err=True)
        return engine

    def config(self, engine: Engine) -> GenerationConfig | None:
        """The sampler's numbers; None where no flag changes the file's."""
        return replace(engine.config, **self.sampler) if self.sampler else None
