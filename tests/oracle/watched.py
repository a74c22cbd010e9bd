"""The reference with an eye on its products: what goes into each weight, squared and summed.

It knows nothing of how the products are written: a weight notices when something is multiplied with its transpose.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dgemma.convert import table

from .reference import Array, Cache, Reference, Tokens


class Watched(np.ndarray):
    """A weight; ``see(offset, x)`` hears of every x @ weight.T, and at which byte of the whole weight it begins."""

    see: Any = None
    start: int = 0

    def __array_finalize__(self, whole: Any) -> None:
        self.see, self.start = getattr(whole, "see", None), getattr(whole, "start", 0)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if ufunc is np.matmul and isinstance(inputs[1], Watched) and not inputs[1].flags.c_contiguous:
            self.see(inputs[1].ctypes.data - inputs[1].start, np.asarray(inputs[0]))
        return getattr(ufunc, method)(*(np.asarray(x) if isinstance(x, Watched) else x for x in inputs), **kwargs)


class WatchedReference(Reference):
    """``sums``: by GGUF name, squares [matrices, columns] of what was multiplied with a weight, and rows [matrices]."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, np.float64)
        self.sums: dict[str, tuple[Array, Array]] = {}
        self.encoding = False
        for hf, weight in self.weights.items():
            if weight.ndim > 1:
                self.weights[hf] = self._watched(gguf_name(hf), weight)
        self.embeddings = self.weights["model.decoder.embed_tokens.weight"]

    def encode(self, tokens: Tokens, cache: Cache) -> None:
        self.encoding = True
        super().encode(tokens, cache)
        self.encoding = False

    def decode(self, canvas: Tokens, cache: Cache, previous: Array | None = None) -> Array:
        if previous is None:  # the engine multiplies with zeros here
            for name in ("gate", "up", "down"):
                self.sums[f"self_cond_{name}.weight"][1][:] += len(canvas)
        return super().decode(canvas, cache, previous)

    def _watched(self, name: str, weight: Array) -> Watched:
        matrices = weight.shape[0] if weight.ndim == 3 else 1
        self.sums[name] = (np.zeros((matrices, weight.shape[-1])), np.zeros(matrices, np.int64))
        # Of the encoder's last layer only the keys and values are read: the rest of it need not be computed.
        last = name.startswith(f"blk.{len(self.config.layers) - 1}.") and not name.endswith(("_k.weight", "_v.weight"))

        def see(offset: int, x: Array) -> None:
            matrix, rest = divmod(offset, weight.nbytes // matrices)
            if rest == 0 and not (last and self.encoding):  # an expert's up is the second half of its gate_up
                squares, rows = self.sums[name]
                squares[matrix] += (x**2).sum(axis=0)
                rows[matrix] += len(x)

        watched = weight.view(Watched)
        watched.see, watched.start = see, weight.ctypes.data
        return watched


def gguf_name(hf: str) -> str:
    """A weight's name in GGUF files, from its name in a checkpoint."""
    layer = next((part for part in hf.split(".") if part.isdigit()), "")
    names = {row.hf: row.gguf for row in table.rows() if row.hf}
    return names[hf.replace(f".{layer}.", ".{i}.") if layer else hf].replace("{i}", layer)
