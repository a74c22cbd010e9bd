"""What one model does with one passage: distributions down a ladder of noise, and whole answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine import Session
from ..errors import BackendError
from ..events import BlockEvent, GenerationConfig, StepEvent


@dataclass(frozen=True, eq=False)
class Answer:
    """One whole run."""

    blocks: tuple[tuple[int, ...], ...]  # the tokens that a user receives, canvas by canvas
    steps: tuple[int, ...]  # of each canvas
    draft: NDArray[np.int32]  # [C] the first canvas as it ended, with what follows its end token

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for block in self.blocks for token in block)


def noise_ladder(
    clean: Sequence[int] | NDArray[np.int32], levels: Sequence[float], n_vocab: int, rng: np.random.Generator
) -> list[NDArray[np.int32]]:
    """The clean canvas with a share of its positions replaced by uniform random tokens, for every level.

    Positions that are noise at a low level are noise at the higher ones, too, as when a canvas settles; their tokens
    are fresh at every level, as the sampler's are.
    """
    order = rng.permutation(len(clean))
    canvases = []
    for level in levels:
        noisy = order[: round(level * len(clean))]
        canvas = np.array(clean, dtype=np.int32)
        canvas[noisy] = rng.integers(0, n_vocab, len(noisy), dtype=np.int32)
        canvases.append(canvas)
    return canvases


def walk(
    session: Session,
    prefix: Sequence[int],
    canvases: Sequence[NDArray[np.int32]],
    temperatures: Sequence[float],
    name: str,
) -> Iterator[NDArray[np.float32]]:
    """z (logits by temperature), float32 [C, V], of every canvas after ``prefix``.

    The first canvas is denoised without self-conditioning, each further one with this model's own z of the one before.
    At most two z live at a time. Raises ``BackendError`` where logits are not finite; ``name`` is the model's.
    """
    session.truncate(0)
    session.prefill(prefix)
    previous = None
    for canvas, temperature in zip(canvases, temperatures, strict=True):
        z = session.denoise(canvas.tolist(), previous)
        z /= np.float32(temperature)  # in place, and in the engine's own precision
        if not np.isfinite(z.sum(dtype=np.float64)):
            raise BackendError(f"{name}: logits are not finite; the weights are damaged or overflow the arithmetic")
        yield z
        previous = z


def answer(session: Session, prefix: Sequence[int], max_new_tokens: int, seed: int, config: GenerationConfig) -> Answer:
    """A whole run after ``prefix``."""
    session.truncate(0)
    blocks, steps, draft, last = [], [], None, None
    for event in session.generate(prefix, max_new_tokens=max_new_tokens, seed=seed, config=config):
        if isinstance(event, StepEvent):
            last = event
        elif isinstance(event, BlockEvent) and last is not None:
            blocks.append(tuple(event.tokens))
            steps.append(last.step)
            draft = last.argmax if draft is None else draft
    assert draft is not None, "an engine whose context holds a canvas finishes one"
    return Answer(tuple(blocks), tuple(steps), draft)
