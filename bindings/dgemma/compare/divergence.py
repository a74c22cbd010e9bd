"""How far two denoising distributions lie apart, position by position."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 20  # values worked on at a time: 8 MB for each array in float64


class Divergence(NamedTuple):
    """One value for each of C positions."""

    kl: NDArray[np.float64]  # [C] KL(reference || candidate), nats
    same: NDArray[np.bool_]  # [C] whether both have the same most probable token, the first of equals
    reference_entropy: NDArray[np.float64]  # [C] nats
    entropy: NDArray[np.float64]  # [C] nats, the candidate's


def divergence(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> Divergence:
    """Compares softmax(reference) with softmax(candidate), both float32 [C, V] and finite, in float64.

    A few rows at a time, so that neither is held a second time: ``reference`` may be mapped from a file. Equal logits
    give a divergence of exactly 0.
    """
    n, n_vocab = reference.shape
    rows = max(1, _BLOCK // n_vocab)
    blocks = [_block(reference[start : start + rows], candidate[start : start + rows]) for start in range(0, n, rows)]
    return Divergence(*map(np.concatenate, zip(*blocks, strict=True)))


def _block(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> Divergence:
    log_p, log_q = _log_softmax(reference), _log_softmax(candidate)
    p = np.exp(log_p)
    reference_entropy = -(p * log_p).sum(axis=1)
    log_p -= log_q
    kl = (p * log_p).sum(axis=1)
    same = reference.argmax(axis=1) == candidate.argmax(axis=1)
    entropy = -(np.exp(log_q) * log_q).sum(axis=1)
    # A divergence is never negative; what the sum of a row falls below 0 by is rounding.
    return Divergence(np.maximum(kl, 0.0), same, reference_entropy, entropy)


def _log_softmax(z: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = z.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
