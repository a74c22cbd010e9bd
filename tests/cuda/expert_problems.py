"""Layers of experts for the CUDA kernels, and what they may make of them: plain arithmetic in float64."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind

from dgemma._core import define_experts
from dgemma.quantize.rows import dequantize_rows, quantize_rows

TILE = 32  # pairs
GROUP = 32  # values of a row that share a scale
WITH_MINIMUM = {"Q4_K", "Q5_K", "Q4_1", "Q5_1"}


def quantized(values: np.ndarray, kind: str) -> np.ndarray:
    rows = quantize_rows(values.reshape(-1, values.shape[-1]), Kind[kind])
    return rows.reshape(*values.shape[:-1], -1)


def dequantized(rows: np.ndarray, kind: str) -> np.ndarray:
    values = dequantize_rows(rows.reshape(-1, rows.shape[-1]), Kind[kind])
    return values.reshape(*rows.shape[:-1], -1).astype(np.float64)


def bf16_parts(rows: np.ndarray, kind: str) -> float:
    """Of weights = scale q - minimum, the size of what is rounded to BF16 (scale q, minimum, weight), by the weights'.

    The smallest weight of a group is minus its minimum, or near it.
    """
    weights = dequantized(rows, kind).reshape(-1, GROUP)
    minima = weights.min(axis=1, keepdims=True) if kind in WITH_MINIMUM else np.zeros((len(weights), 1))
    parts = (weights - minima) ** 2 + minima**2 + weights**2
    return float(np.sqrt(parts.mean() / (weights**2).mean()))


def with_bf16_scales(rows: np.ndarray, kind: str, exponents: tuple[int, int]) -> np.ndarray:
    """The rows with other scales and minima, for which every weight is a BF16: a power of two times few bits.

    The blocks' scales have exponents from the first of the two to below the second.
    """
    random = np.random.default_rng(rows.shape)
    blocks = rows.reshape(-1, GGML_QUANT_SIZES[Kind[kind]][1]).copy()

    def write_halves(place: int, values: np.ndarray) -> None:
        blocks[:, place : place + 2] = values.astype(np.float16).view(np.uint8).reshape(-1, 2)

    n = len(blocks)
    scale = 2.0 ** random.integers(*exponents, n)
    write_halves(0, scale)
    if kind in ("Q4_1", "Q5_1"):
        write_halves(2, -scale * random.integers(0, 32, n))
    if kind == "IQ4_XS":
        scales = 32 + random.choice([-4, -2, -1, 1, 2, 8], (n, 8))
        blocks[:, 2:4] = (scales >> 4 << 2 * np.arange(8)).sum(axis=1).astype(np.uint16)[:, None].view(np.uint8)
        blocks[:, 4:8] = scales[:, ::2] & 15 | (scales[:, 1::2] & 15) << 4
    if kind in ("Q4_K", "Q5_K"):
        write_halves(2, scale)
        scales = 2 ** random.integers(0, 4, (n, 8))
        minima = scales * random.integers(0, 8, (n, 8))
        blocks[:, 4:8] = scales[:, :4] | scales[:, 4:] >> 4 << 6
        blocks[:, 8:12] = minima[:, :4] | minima[:, 4:] >> 4 << 6
        blocks[:, 12:16] = scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4
    return blocks.reshape(rows.shape)


@dataclass(frozen=True)
class ExpertProblem:
    """One layer; its fields are the arguments of ``run_experts_on_card``."""

    logits: np.ndarray
    n_used: int
    expert_scale: np.ndarray
    x: np.ndarray
    gate_up: np.ndarray = field(repr=False)
    gate_up_type: str
    down: np.ndarray = field(repr=False)
    down_type: str
    is_bf16: bool = False

    @staticmethod
    def random(
        n: int,
        experts: int,
        used: int,
        hidden: int,
        ffn: int,
        gate_up_type: str = "Q4_0",
        down_type: str = "Q5_0",
        is_bf16: bool = False,
    ) -> ExpertProblem:
        random = np.random.default_rng([n, experts, used, hidden, ffn])

        def normal(*shape: int) -> np.ndarray:
            return random.standard_normal(shape, dtype=np.float32)

        # Sizes that differ by row, so that a scale of the wrong row, or expert, shows.
        gate_up = normal(experts, 2 * ffn, hidden) * np.exp(normal(experts, 2 * ffn, 1) / 2) / np.sqrt(hidden)
        down = normal(experts, hidden, ffn) * np.exp(normal(experts, hidden, 1) / 2) / np.sqrt(ffn)
        return ExpertProblem(
            logits=2 * normal(n, experts),
            n_used=used,
            expert_scale=np.exp(normal(experts) / 2),
            x=normal(n, hidden) * np.exp(normal(n, 1) / 2 + normal(1, hidden) / 2),
            gate_up=quantized(gate_up.astype(np.float32), gate_up_type),
            gate_up_type=gate_up_type,
            down=quantized(down.astype(np.float32), down_type),
            down_type=down_type,
            is_bf16=is_bf16,
        )

    def with_bf16_weights(self, exponents: tuple[int, int] = (-9, -4)) -> ExpertProblem:
        return replace(
            self,
            gate_up=with_bf16_scales(self.gate_up, self.gate_up_type, exponents),
            down=with_bf16_scales(self.down, self.down_type, exponents),
        )

    def with_logits(self, logits: np.ndarray) -> ExpertProblem:
        return replace(self, logits=logits.astype(np.float32))

    def solved_by(self, card: Any) -> dict[str, Any]:
        return card(**vars(self))

    @property
    def twin(self) -> dict[str, Any]:
        return define_experts(**vars(self))

    def bf16_rounding(self, activations: bool) -> float:
        """What rounding weights to BF16, and activations, may make of the result, by its length.

        Every rounding as large as it can be, 2^-8 of what is rounded; they are independent of each other, so their
        squares add up. Gate and up pass on what they got, and then there is down.
        """
        gate_up, down = bf16_parts(self.gate_up, self.gate_up_type), bf16_parts(self.down, self.down_type)
        squares = 2 * gate_up**2 + down**2 + (3 if activations else 0)
        return float(2**-8 * np.sqrt(squares))

    @property
    def probabilities(self) -> np.ndarray:
        e = np.exp(self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def products(self, experts: np.ndarray) -> np.ndarray:
        """What the chosen experts [n, used] say, unrounded: float64 [n, used, hidden]."""
        gate_up, down = dequantized(self.gate_up, self.gate_up_type), dequantized(self.down, self.down_type)
        ffn = down.shape[2]
        said = np.empty((*experts.shape, down.shape[1]))
        for token, choices in enumerate(experts):
            for k, expert in enumerate(choices):
                both = gate_up[expert] @ self.x[token].astype(np.float64)
                gate, up = both[:ffn], both[ffn:]
                gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
                said[token, k] = down[expert] @ (gelu * up)
        return said


def tiles_of(experts: np.ndarray, n_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs by expert, rising within one, and the tiles (expert, first, count)."""
    pairs = np.argsort(experts.ravel(), kind="stable")
    tiles, first = [], 0
    for expert, count in enumerate(np.bincount(experts.ravel(), minlength=n_experts)):
        for done in range(0, count, TILE):
            tiles.append((expert, first + done, min(TILE, count - done)))
        first += count
    return pairs, np.array(tiles)
