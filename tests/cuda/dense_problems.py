"""Dense products for the CUDA kernels, and what they may make of them: plain arithmetic in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from emulation import Card
from expert_problems import dequantized, quantized
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from gguf.quants import Q4_K

GROUP = 32


def to_int8(x: np.ndarray) -> np.ndarray:
    """x as 8 bits and back, a scale for every 32."""
    groups = x.astype(np.float32).reshape(x.shape[0], -1, GROUP)
    most = np.abs(groups).max(axis=2, keepdims=True)
    q = np.rint(groups * (np.float32(127) / most))
    return (q.astype(np.float64) * (most / np.float32(127))).reshape(x.shape)


def to_bf16(x: np.ndarray) -> np.ndarray:
    """x with 8 significant bits: its nearest BF16, but for the smallest numbers."""
    fraction, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.rint(fraction * 256) / 256, exponent)


def scales_and_minima(rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each value, scale q - minimum, of quantised rows."""
    n_values, n_bytes = GGML_QUANT_SIZES[Kind[kind]]
    blocks = rows.reshape(-1, n_bytes)

    def half(at: int) -> np.ndarray:
        return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float64)

    scale, minimum = half(0), np.zeros((len(blocks), 1))
    if kind in ("Q4_1", "Q5_1"):
        minimum = -half(2)
    elif kind in ("Q4_K", "Q5_K"):
        small, least = Q4_K.get_scale_min(blocks[:, 4:16])
        scale, minimum = half(0) * small, half(2) * least
    elif kind == "IQ4_XS":
        low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
        high = np.ascontiguousarray(blocks[:, 2:4]).view(np.uint16) >> (2 * np.arange(8)) & 3
        scale = half(0) * ((low | high << 4).astype(np.int64) - 32)
    elif kind == "Q6_K":
        scale = half(208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)

    def of_values(of_groups: np.ndarray) -> np.ndarray:
        return np.repeat(of_groups, n_values // of_groups.shape[1], axis=1).reshape(len(rows), -1)

    return of_values(scale), of_values(minimum)


def bf16_weights(rows: np.ndarray, kind: str) -> np.ndarray:
    """What the kernels unpack: scale and minimum as BF16, and then the value."""
    scale, minimum = scales_and_minima(rows, kind)
    q = np.rint((dequantized(rows, kind) + minimum) / np.where(scale == 0, 1, scale))
    return to_bf16(to_bf16(scale) * q - to_bf16(minimum))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@dataclass(frozen=True)
class DenseProblem:
    x: np.ndarray
    weights: list[tuple[np.ndarray, str]]
    is_bf16: bool = False  # what the kernels make of x

    @staticmethod
    def random(n: int, k: int, *weights: tuple[str, int], is_bf16: bool = False) -> DenseProblem:
        """Weights (type, rows), of sizes that differ by row, so that a scale of the wrong row shows."""
        random = np.random.default_rng([n, k, *(rows for _, rows in weights)])

        def normal(*shape: int) -> np.ndarray:
            return random.standard_normal(shape, dtype=np.float32)

        def sized(rows: int) -> np.ndarray:
            return normal(rows, k) * np.exp(normal(rows, 1) / 2 + normal(1, k) / 2) / np.float32(np.sqrt(k))

        x = normal(n, k) * np.exp(normal(n, 1) / 2 + normal(1, k) / 2)
        return DenseProblem(x, [(quantized(sized(rows), kind), kind) for kind, rows in weights], is_bf16)

    def solved_by(
        self, card: Card, is_gated: bool = False, gated_is_bf16: bool = False, is_shared: bool = False
    ) -> list[np.ndarray]:
        arithmetic = {"is_bf16": self.is_bf16, "gated_is_bf16": gated_is_bf16}
        return card(x=self.x, weights=self.weights, is_gated=is_gated, **arithmetic, is_shared=is_shared)

    def expected(self) -> list[np.ndarray]:
        if self.is_bf16:
            return [to_bf16(self.x) @ bf16_weights(*weight).T for weight in self.weights]
        return [to_int8(self.x) @ dequantized(*weight).T for weight in self.weights]

    @property
    def f32_rounding(self) -> float:
        """Of a sum, by the length of x times that of the weights. BF16's is made by the tensor cores, which may cut off
        bits where a card's F32 unit rounds; one bit of one weight of 512 is a hundred times as much."""
        return 3e-6 if self.is_bf16 else 2e-7

    def check(self, card: Card, is_shared: bool = False) -> None:
        results = self.solved_by(card, is_shared=is_shared)
        for found, expected, weight in zip(results, self.expected(), self.weights, strict=True):
            sizes = np.outer(np.linalg.norm(self.x, axis=1), np.linalg.norm(dequantized(*weight), axis=1))
            assert (np.abs(found - expected) < self.f32_rounding * sizes).all()

    def check_gated(self, card: Card, gated_is_bf16: bool) -> None:
        (found,) = self.solved_by(card, is_gated=True, gated_is_bf16=gated_is_bf16)
        gate, up = self.expected()
        expected = (gelu(gate) * up).reshape(len(found), -1, GROUP)
        most = np.abs(expected).max(axis=2, keepdims=True)
        # Half of the distance between two numbers that rows can have, and what F32 sums bring.
        step = np.exp2(np.frexp(expected)[1] - 8.0) if gated_is_bf16 else most / 127
        apart = np.abs(found.reshape(expected.shape) - expected)
        assert (apart < 0.5001 * step + 1e-5 * most).all()
        assert (apart > 0.4 * step).any()
