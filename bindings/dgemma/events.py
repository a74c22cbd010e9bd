"""What goes into a generation and what comes out of it: plain data, no engine.

``Engine.generate`` yields a ``StepEvent`` after every denoising step, a ``BlockEvent`` after every finished canvas, and
one ``DoneEvent`` at the end. Arrays are copies: they stay valid when the next event comes.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import ModelFileError, RequestError
from .metadata import Metadata

_LARGEST = 2**31 - 1  # what a C++ int holds

Reason = Literal["stop", "length", "context", "cancelled"]


@dataclass(frozen=True)
class GenerationConfig:
    """The numbers of the entropy-bound sampler; the defaults are the released checkpoint's.

    Step n of N (counting down from N = ``max_denoising_steps``) has the temperature t_min + (t_max - t_min)·n/N, so N
    is part of the schedule: 24 steps are another schedule, not half of 48. Raises ``RequestError`` naming the field and
    its legal range.
    """

    max_denoising_steps: int = 48
    t_min: float = 0.4
    t_max: float = 0.8
    entropy_bound: float = 0.1  # nats: a position is accepted while the surer ones' entropies sum to at most this
    stability_threshold: int = 1  # how many times in a row the draft must stay the same before a canvas is done
    confidence_threshold: float = 0.005  # nats: and the mean entropy must be below this

    def __post_init__(self) -> None:
        self._check_integer("max_denoising_steps", at_least=1)
        self._check_number("t_max", above=0.0)
        self._check_number("t_min")
        if self.t_min > self.t_max:
            raise RequestError(f"t_min must be at most t_max ({self.t_max}), not {self.t_min}")
        self._check_number("entropy_bound")
        self._check_integer("stability_threshold", at_least=0)
        self._check_number("confidence_threshold")

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], source: str = "model file") -> GenerationConfig:
        """The numbers of a file's ``diffusion.eb_*`` keys; each that it lacks has its default (most files have none).

        Raises ``ModelFileError`` where a value has a wrong type or leaves its range.
        """
        file = Metadata(metadata, source)
        try:
            return cls(
                max_denoising_steps=file.integer("diffusion.eb_max_steps", cls.max_denoising_steps),
                t_min=file.number("diffusion.eb_t_min", cls.t_min),
                t_max=file.number("diffusion.eb_t_max", cls.t_max),
                entropy_bound=file.number("diffusion.eb_entropy_bound", cls.entropy_bound),
                stability_threshold=file.integer("diffusion.eb_stability_threshold", cls.stability_threshold),
                confidence_threshold=file.number("diffusion.eb_confidence_threshold", cls.confidence_threshold),
            )
        except RequestError as error:
            raise ModelFileError(f"{source}: one of the diffusion.eb_* keys is out of range, {error}") from None

    def _check_integer(self, name: str, at_least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < at_least:
            raise RequestError(f"{name} must be an integer of at least {at_least}, not {value!r}")
        if int(value) > _LARGEST:
            raise RequestError(f"{name} must be at most {_LARGEST}, not {value}")

    def _check_number(self, name: str, above: float | None = None) -> None:
        value = getattr(self, name)
        legal = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if not legal or value < 0 or (above is not None and value <= above):
            wanted = "of at least 0" if above is None else f"above {above:g}"
            raise RequestError(f"{name} must be a finite number {wanted}, not {value!r}")


@dataclass(frozen=True, eq=False)
class StepEvent:
    """One denoising step of one canvas of C positions."""

    block: int  # which canvas of this answer, from 0
    step: int  # from 1 within its block
    temperature: float  # by which this step's logits were divided
    canvas: NDArray[np.int32]  # [C] the next canvas: what the next step sees, accepted samples among fresh noise
    accepted: NDArray[np.bool_]  # [C] where the canvas took this step's sample; nothing is frozen by it
    entropy: NDArray[np.float32]  # [C] nats, of this step's distributions
    argmax: NDArray[np.int32]  # [C] the draft of the answer as it stands


@dataclass(frozen=True)
class BlockEvent:
    """One finished canvas: the tokens that the user receives of it."""

    block: int  # from 0
    tokens: list[int]  # cut before the end token and at max_new_tokens; empty where a block begins with its end token


@dataclass(frozen=True)
class GenerationStats:
    """What an answer took. Tokens are those the user received: nothing after the end token counts."""

    prompt_tokens: int
    new_tokens: int
    blocks: int
    steps: int
    encode_seconds: float  # the prompt, and every finished canvas
    denoise_seconds: float  # all steps together, sampling included
    wall_seconds: float  # from the call to the last event

    @property
    def ms_per_step(self) -> float:
        return 1000 * self.denoise_seconds / self.steps if self.steps else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.new_tokens / self.wall_seconds if self.wall_seconds > 0 else 0.0


@dataclass(frozen=True)
class DoneEvent:
    """The end of an answer.

    ``reason`` is "stop" (an end token, whose id is ``end_token``), "length" (``max_new_tokens`` reached), "context"
    (no room for another canvas) or "cancelled".
    """

    reason: Reason
    end_token: int | None
    stats: GenerationStats


Event = StepEvent | BlockEvent | DoneEvent


@dataclass(frozen=True)
class EngineInfo:
    """What a model file holds, as ``Engine.info`` shows it."""

    n_layer: int
    n_embd: int
    n_vocab: int
    n_expert: int
    n_expert_used: int
    n_head: int
    canvas_length: int
    sliding_window: int
    context_length: int  # tokens that the model was made for; an engine may be opened with fewer
    eos_ids: tuple[int, ...]
    file_type: str  # as file names spell it: "BF16", "Q4_K_M"
    name: str
    n_params: int
    n_bytes: int  # of the whole set of files
