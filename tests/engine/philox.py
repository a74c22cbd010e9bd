"""The engine's random numbers in plain Python (cpp/src/denoise/philox.h): Philox4x32-10."""

from __future__ import annotations

import numpy as np

CANVAS, SAMPLE, NOISE = 0, 1, 2
_WORD = 0xFFFFFFFF


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & _WORD, (a >> 32) ^ c3 ^ k1, a & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def unit(seed: int, position: int, step: int, block: int, stream: int) -> float:
    """Uniform in [0, 1), 53 bits."""
    low, high, _, _ = philox4x32((position, step, block, stream), (seed & _WORD, seed >> 32))
    return ((high << 32 | low) >> 11) * 2.0**-53


class EngineRandom:
    """The numbers of one answer in the order in which oracle.reference_sampler asks for them."""

    def __init__(self, seed: int, canvas_length: int, n_vocab: int) -> None:
        self.seed, self.canvas_length, self.n_vocab = seed, canvas_length, n_vocab
        self.block, self.step = -1, 0
        self.fresh = True

    def begin_block(self) -> None:
        self.block, self.step, self.fresh = self.block + 1, 0, True

    def _row(self, stream: int) -> np.ndarray:
        return np.array([unit(self.seed, i, self.step, self.block, stream) for i in range(self.canvas_length)])

    def noise(self) -> np.ndarray:
        stream = CANVAS if self.fresh else NOISE
        self.fresh = False
        return (self._row(stream) * self.n_vocab).astype(np.int32)

    def uniform(self) -> np.ndarray:
        self.step += 1
        return self._row(SAMPLE)
