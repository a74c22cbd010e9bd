"""Size against damage as a picture. Needs matplotlib: ``pip install 'dgemma[plot]'``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError, LibraryError, RequestError
from .names import short_names
from .report import Candidate, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SMALLEST = 1e-12  # nats; where all candidates equal the reference there is no scale to draw


def check_plot(path: str | os.PathLike[str]) -> None:
    """Whether a picture can be written there, asked before anything is computed.

    Raises ``LibraryError`` without matplotlib, ``RequestError`` for a kind of file that it does not write, and
    ``FileError`` where the folder does not exist.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise LibraryError("drawing needs matplotlib, which is not installed: pip install 'dgemma[plot]'") from None
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in FigureCanvasBase.get_supported_filetypes():
        raise RequestError(f"{os.fspath(path)} names no kind of picture: let it end with .png, .svg or .pdf")
    if not Path(path).parent.is_dir():
        raise FileError(f"{os.fspath(path)} cannot be written: there is no folder {Path(path).parent}")


def draw(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """A point for each candidate: gigabytes across, KL divergence upwards on a log scale, with its standard error.

    A candidate without any divergence has no place on such a scale: it lies on the lower edge and says so.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_yscale("log")
    candidates = sorted(comparison.candidates, key=lambda candidate: -candidate.model.n_bytes)
    unit, name = (1e9, "GB") if candidates[0].model.n_bytes >= 1e9 else (1e6, "MB")
    floor = min((candidate.kl.mean for candidate in candidates if candidate.kl.mean > 0), default=_SMALLEST) / 3
    top = max(candidate.kl.mean + (candidate.kl.error or 0.0) for candidate in candidates)
    reference = Path(comparison.reference.path).name.removesuffix(".gguf")
    labels = short_names([comparison.reference.path, *(candidate.model.path for candidate in candidates)])[1:]
    for index, (candidate, label) in enumerate(zip(candidates, labels, strict=True)):
        _point(axes, candidate, unit, floor, label, below=index % 2 == 0)
    axes.set_xlim(0, 1.1 * candidates[0].model.n_bytes / unit)
    axes.set_ylim(floor / 2, 2 * max(top, floor))
    axes.set_xlabel(f"size of the file, {name}")
    axes.set_ylabel("KL divergence, nats a position")
    count, levels = comparison.passages, len(candidates[0].levels)
    over = f"mean over {count} passage{'s' * (count > 1)} and {levels} noise level{'s' * (levels > 1)}"
    title = f"Against {reference}\n{over}; bars: standard error"
    axes.set_title(title, fontsize=10, parse_math=False)  # a file's name may hold a dollar
    axes.grid(True, which="major", alpha=0.3)
    figure.savefig(path)


def _point(axes: Axes, candidate: Candidate, unit: float, floor: float, label: str, *, below: bool) -> None:
    """One candidate. The points fall from left to right, so there is room below on the left and above on the right;
    neighbours take turns."""
    kl, size = candidate.kl, candidate.model.n_bytes / unit
    height = kl.mean or floor
    error = kl.error or 0.0
    # A bar that reaches 0 has no lower end on a log scale.
    bars = [[min(error, height * 0.9)], [error]]
    filling = "tab:blue" if kl.mean > 0 else "white"
    axes.errorbar([size], [height], bars, fmt="o", color="tab:blue", mfc=filling, ecolor="tab:gray", capsize=3)
    axes.annotate(
        label + ("" if kl.mean > 0 else " (no divergence)"),
        (size, height),
        xytext=(-6, -5) if below else (6, 5),
        textcoords="offset points",
        ha="right" if below else "left",
        va="top" if below else "bottom",
        fontsize=8,
        parse_math=False,
    )
