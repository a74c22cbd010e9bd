"""The entropy-bound sampler's one step as a pure function of numpy arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._native import core
from .errors import RequestError


class EntropyBoundStep(NamedTuple):
    """What one step decided; C positions."""

    argmax: NDArray[np.int32]  # [C] the most probable token, the first of equals
    sampled: NDArray[np.int32]  # [C] the token drawn with u
    entropy: NDArray[np.float32]  # [C] of softmax(logits / temperature), in nats
    accepted: NDArray[np.bool_]  # [C]
    next_canvas: NDArray[np.int32]  # [C] sampled where accepted, noise elsewhere


def entropy_bound_step(
    logits: ArrayLike, temperature: float, entropy_bound: float, u: ArrayLike, noise: ArrayLike
) -> EntropyBoundStep:
    """One step of the sampler (``generation_diffusion_gemma.py``, EntropyBoundSampler; arXiv 2505.24857).

    logits: float32 [C, V], after the soft-cap and before the temperature. temperature: above 0. entropy_bound: nats;
    positions are accepted in the order of their entropy while the sum of the strictly earlier entropies is at most the
    bound, so at least one is. u: [C] in [0, 1); sampled[i] is the first v whose cumulative softmax(logits[i] /
    temperature) exceeds u[i]. noise: [C] the tokens that go where nothing is accepted.

    Raises ``RequestError`` for arrays of other shapes or values outside these ranges.
    """
    z = np.ascontiguousarray(logits, dtype=np.float32)
    draws = np.ascontiguousarray(u, dtype=np.float64)
    fresh = np.ascontiguousarray(noise, dtype=np.int32)
    if z.ndim != 2 or 0 in z.shape:
        raise RequestError(f"logits must have the shape [C, V], not {list(z.shape)}")
    if draws.shape != z.shape[:1] or fresh.shape != z.shape[:1]:
        raise RequestError(
            f"u and noise need one value for each of the {z.shape[0]} positions, not shapes {list(draws.shape)} and "
            f"{list(fresh.shape)}"
        )
    if not temperature > 0 or not entropy_bound >= 0:
        raise RequestError(
            f"temperature must be above 0 and entropy_bound at least 0, not {temperature} and {entropy_bound}"
        )
    if not ((draws >= 0) & (draws < 1)).all():
        raise RequestError("every u must lie in [0, 1)")
    step = core.entropy_bound_step(z, float(temperature), float(entropy_bound), draws, fresh)
    return EntropyBoundStep(step.argmax, step.sampled, step.entropy, step.accepted, step.next_canvas)
