"""The figures of a comparison: plain data, each with its standard error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Estimate:
    """A mean over passages.

    Positions of one canvas depend on each other, and so do runs of one prompt: they are averaged within their passage
    first, and the error is that of the mean of the passages.
    """

    mean: float
    error: float | None  # standard error; None with a single passage, which says nothing about others

    @classmethod
    def over(cls, passages: ArrayLike) -> Estimate:
        """Of one value for each passage, [P] with P >= 1."""
        values = np.asarray(passages, dtype=np.float64)
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        return cls(float(values.mean()), error)


@dataclass(frozen=True)
class ModelSummary:
    """What a file is."""

    path: str
    file_type: str  # "Q4_K_M"
    n_bytes: int  # of the whole set of files
    bits_per_weight: float  # over all tensors


@dataclass(frozen=True)
class LevelDamage:
    """One noise level: figures of a position's distribution, at the temperature that the schedule has there."""

    level: float  # share of the canvas's positions that are noise
    temperature: float
    kl: Estimate  # KL(reference || candidate), nats a position
    agreement: Estimate  # share of positions with the same most probable token
    entropy: Estimate  # the reference's, nats a position
    entropy_shift: Estimate  # the candidate's less the reference's, nats a position


@dataclass(frozen=True)
class RunDamage:
    """Whole answers from the same prompts and seeds."""

    steps: Estimate  # denoising steps a canvas
    reference_steps: Estimate
    unfinished: Estimate  # share of canvases that took every step that the schedule has
    reference_unfinished: Estimate
    same_tokens: Estimate  # share of places in the answer with the same token, of the longer answer's length
    same_first_block: Estimate  # share of answers whose first canvas gave the same tokens


@dataclass(frozen=True)
class Candidate:
    """What one candidate costs; the first three are means over the noise levels, which ``levels`` has one by one."""

    model: ModelSummary
    kl: Estimate
    agreement: Estimate
    entropy_shift: Estimate
    levels: tuple[LevelDamage, ...]  # from the noisiest down
    runs: RunDamage | None  # None where no answers were asked for


@dataclass(frozen=True)
class Comparison:
    """Candidates beside one reference."""

    reference: ModelSummary
    candidates: tuple[Candidate, ...]
    passages: int
    canvas_length: int
    runs: int  # answers for each passage
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return asdict(self)
