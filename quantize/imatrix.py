"""An importance matrix: how large the inputs of each weight's columns are, and so how much an error there matters.

The output of a row w for an input x is w · x. If rounding moves w by d, the output moves by d · x, and over many inputs
its square is about the sum of d[c]² times the mean of x[c]²: that mean is what an importance matrix holds.

Experts see different numbers of rows. One that saw n counts as if it had seen PRIOR_ROWS more that were like the mean
over all experts' rows: with thousands of rows that changes nothing, with a handful it keeps chance out, and without any
it leaves the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from ..convert.keys import from_writer
from ..convert.model import Model, Weight
from ..convert.writer import Importance
from ..errors import RequestError

Floats = npt.NDArray[np.float64]

PRIOR_ROWS = 16


@dataclass(frozen=True)
class Inputs:
    """What one weight was multiplied with. squares: summed by column [matrices, columns]; rows: how many [matrices].

    One matrix, or one for each expert, which has the rows that were routed to it.
    """

    squares: Floats
    rows: Floats

    def mean(self) -> npt.NDArray[np.float32]:
        """The mean square by column [matrices, columns]; the module says how experts with few rows get theirs."""
        rows = self.rows[:, None]
        if len(rows) == 1:
            return np.asarray(self.squares / rows, np.float32)
        overall = self.squares.sum(axis=0) / rows.sum()
        return np.asarray((self.squares + PRIOR_ROWS * overall) / (rows + PRIOR_ROWS), np.float32)

    def unseen(self) -> list[int]:
        """The matrices without a single row."""
        return [int(matrix) for matrix in np.flatnonzero(self.rows == 0)]

    def shaped(self, matrices: int, columns: int) -> Inputs | None:
        """The same for a weight of that shape, None where it does not fit. Old files know no matrices, only values."""
        if self.squares.shape == (matrices, columns):
            return self
        if len(self.rows) == 1 and self.squares.size == matrices * columns:
            return Inputs(self.squares.reshape(matrices, columns), np.repeat(self.rows, matrices))
        return None

    def __add__(self, other: Inputs) -> Inputs:
        return Inputs(self.squares + other.squares, self.rows + other.rows)


@dataclass(frozen=True)
class Imatrix:
    """What was collected, by the weight's name, and from what. ``run``: how, so that the same run can go on; only in
    files that ``dgemma imatrix`` made in one run."""

    entries: Mapping[str, Inputs]
    datasets: tuple[str, ...] = ()
    chunk_count: int = 0
    chunk_size: int = 0  # tokens
    run: str = ""
    source: str = field(default="the importance matrix", compare=False)  # for messages

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Those of the tensors that have no values here."""
        return [name for name in names if name not in self.entries or not self.entries[name].rows.any()]

    def unseen(self) -> dict[str, list[int]]:
        """The experts without a single row, by tensor; each counts as the mean over all experts' rows."""
        unseen = {name: inputs.unseen() for name, inputs in self.entries.items() if inputs.rows.any()}
        return {name: experts for name, experts in unseen.items() if experts}


def merge(parts: Sequence[Imatrix]) -> Imatrix:
    """All rows of all parts as one. RequestError where two are of different models."""
    entries: dict[str, Inputs] = {}
    for part in parts:
        for name, inputs in part.entries.items():
            entries[name] = _together(name, entries.get(name), inputs, part.source)
    return Imatrix(
        entries,
        tuple(dataset for part in parts for dataset in part.datasets),
        sum(part.chunk_count for part in parts),
        next((part.chunk_size for part in parts if part.chunk_size), 0),
    )


def _together(name: str, known: Inputs | None, more: Inputs, source: str) -> Inputs:
    if known is None:
        return more
    if len(known.rows) == 1 and len(more.rows) > 1:
        known = known.shaped(*more.squares.shape) or known
    fitting = more.shaped(*known.squares.shape)
    if fitting is None:
        raise RequestError(
            f"{source}: {name} has {_shape(more)} values, but {_shape(known)} in the others: it is of another model"
        )
    return known + fitting


def noting(model: Model, imatrix: Imatrix) -> Model:
    """The model with a note in its metadata of what it is quantised with, under llama-quantize's keys."""
    writer = gguf.GGUFWriter(path=None, arch="")
    writer.kv_data[0].clear()
    writer.add_string("quantize.imatrix.file", Path(imatrix.source).name)
    writer.add_string("quantize.imatrix.dataset", imatrix.datasets[0] if imatrix.datasets else "")
    writer.add_uint32("quantize.imatrix.entries_count", len(imatrix.entries))
    writer.add_uint32("quantize.imatrix.chunks_count", imatrix.chunk_count)
    note = from_writer(writer)
    return replace(model, keys=lambda file_type: model.keys(file_type) + note)


def _shape(inputs: Inputs) -> str:
    return " x ".join(map(str, inputs.squares.shape))


def importance_for(imatrix: Imatrix, weights: Iterable[Weight]) -> Importance:
    """What the quantisers take, for those of a model's weights that have values; ``Imatrix.lacks`` names the others.

    Raises RequestError where the matrix is of another model.
    """
    importance = {}
    for weight in weights:
        inputs = imatrix.entries.get(weight.name)
        if weight.fixed is not None or inputs is None or not inputs.rows.any():
            continue
        matrices, columns = weight.shape[0] if len(weight.shape) == 3 else 1, weight.shape[-1]
        fitting = inputs.shaped(matrices, columns)
        if fitting is None:
            raise RequestError(
                f"{imatrix.source}: {weight.name} has {_shape(inputs)} values, but the model's tensor {matrices} x "
                f"{columns}: the importance matrix is of another model"
            )
        importance[weight.name] = fitting.mean()
    if not importance:
        raise RequestError(f"{imatrix.source}: has no values for any tensor of the model: it is of another model")
    return importance
