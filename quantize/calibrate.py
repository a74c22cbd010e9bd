"""Collecting an importance matrix: the model answers pieces of a text, and the engine looks into every product.

Each piece is encoded as a prompt, and the canvases after it are denoised as in any answer, with the sampler's own
noise, conditioning and stop rule: so the matrix has seen the encoder on text, and the decoder at every noise level on
the way to an answer. Every row counts the same, whichever pass it is from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from .._native import core
from ..chat import history_ids
from ..convert.metadata import ARCHITECTURE
from ..convert.output import check_output
from ..engine import Engine, Session
from ..errors import RequestError
from ..events import EngineInfo, StepEvent
from ..metadata import Metadata
from ..template import ChatTemplate
from ..tokenizer import Tokenizer
from .imatrix import Imatrix, Inputs, merge
from .imatrix_file import read_imatrix, write_imatrix

Watch = Callable[[int, int, float], object]  # pieces done, pieces in all, about what part of the one at hand


@dataclass(frozen=True)
class Calibration:
    """How a text is made into prompts and answers. Two runs with the same numbers over the same text are the same.

    chunk_size: tokens of text in a piece. n_predict: tokens of answer to a piece. raw: the piece is the prompt, as it
    is; otherwise it is what the user says in a chat. parse_special: special tokens spelled in the text count as such.
    first: pieces to leave out at the beginning. seed: of the first piece's answer; the next one has the next seed.
    """

    chunk_size: int = 512
    n_predict: int = 256
    raw: bool = False
    parse_special: bool = False
    first: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.parse_special and not self.raw:
            raise RequestError("parse_special is for texts that are prompts already: it needs raw")

    def record(self, text: str, info: EngineInfo) -> str:
        """What a file says of the run, and what must be the same for it to go on."""
        model = {"name": info.name, "file_type": info.file_type, "n_params": info.n_params}
        text_hash = hashlib.sha256(text.encode()).hexdigest()
        return json.dumps({**asdict(self), "text": text_hash, "model": model}, sort_keys=True)


def make_prompts(text: str, tokenizer: Tokenizer, calibration: Calibration) -> list[list[int]]:
    """The ids of each piece's prompt. What is left at the end and is no whole piece is left out."""
    size = calibration.chunk_size - 1 if calibration.raw else calibration.chunk_size  # BOS is one of them
    ids = tokenizer.encode(text, add_bos=False, parse_special=calibration.parse_special)
    pieces = [ids[begin : begin + size] for begin in range(0, len(ids) - size + 1, size)] if size > 0 else []
    if len(pieces) <= calibration.first:
        raise RequestError(
            f"the text has {len(ids)} tokens, which is less than {calibration.first + 1} of {calibration.chunk_size}: "
            "take a longer text or smaller pieces (-c)"
        )
    pieces = pieces[calibration.first :]
    if calibration.raw:
        return [[tokenizer.bos_id, *piece] for piece in pieces]
    template = ChatTemplate.from_tokenizer(tokenizer)
    # A character that the border of two pieces cuts is left out of both.
    texts = [tokenizer.decode(piece).strip("\N{REPLACEMENT CHARACTER}") for piece in pieces]
    return [history_ids(template, tokenizer, [{"role": "user", "content": text}]) for text in texts]


def context_size(prompts: Sequence[Sequence[int]], calibration: Calibration, metadata: Metadata) -> int:
    """The positions that the longest prompt and its answer take. RequestError where the model has fewer."""
    canvas = metadata.integer("diffusion.canvas_length")
    size = max(map(len, prompts)) + -(-calibration.n_predict // canvas) * canvas
    context = metadata.integer(f"{ARCHITECTURE}.context_length")
    if size > context:
        raise RequestError(
            f"a piece and its answer take {size} tokens, and the model was made for {context}: take smaller pieces "
            "(-c) or shorter answers (-n)"
        )
    return size


def make_imatrix(
    model: str | os.PathLike[str],
    text: str,
    out: str | os.PathLike[str],
    calibration: Calibration | None = None,
    *,
    dataset: str = "",
    chunks: int | None = None,
    merge_with: Sequence[Imatrix] = (),
    resume: bool = False,
    force: bool = False,
    n_gpu_layers: int = -1,
    threads: int | None = None,
    save_every: int = 10,
    watch: Watch | None = None,
) -> Imatrix:
    """Collect an importance matrix for a GGUF model over a text, and write it.

    model: the file, best of all in F16 or BF16. out: the file to write; one that exists is refused unless ``force``, or
    gone on with by ``resume`` if it is of the same model, text and ``calibration``. dataset: the text's name, noted in
    the file. chunks: pieces at most. merge_with: matrices whose rows count, too. save_every: write after so many
    pieces, and at the end, also when Ctrl-C or an error is the end: what is written are whole pieces. watch: called
    with the piece at hand, the number of pieces, and about what part of the piece is done.

    The same arguments give the same file on any number of threads. Raises ModelFileError for the model, RequestError
    for what cannot be done, FileError for files that cannot be read or written.
    """
    calibration = calibration or Calibration()
    path = Path(out)
    check_output(path, [Path(model)], force=force or resume)
    tokenizer = Tokenizer.from_gguf(model)
    prompts = make_prompts(text, tokenizer, calibration)[:chunks]
    n_ctx = context_size(prompts, calibration, _metadata(model))
    with Engine(model, n_ctx=n_ctx, n_gpu_layers=n_gpu_layers, n_threads=threads, exact=True) as engine:
        run = "" if merge_with else calibration.record(text, engine.info)
        found = Imatrix({}, (dataset,), chunk_size=calibration.chunk_size, run=run)
        if resume and path.exists():
            found = _begun(path, run)
        saved = found.chunk_count
        try:
            for more in collect(engine, prompts, calibration, found, watch):
                found = more
                if found.chunk_count - saved >= save_every:
                    saved = _save(found, merge_with, path)
        finally:
            if found.chunk_count > saved:
                _save(found, merge_with, path)
    return merge([*merge_with, found]) if merge_with else found


def _metadata(model: str | os.PathLike[str]) -> Metadata:
    file = os.fspath(model)
    return Metadata(core.read_gguf(file).metadata, file)


def _begun(path: Path, run: str) -> Imatrix:
    """What an earlier run left, if it was the same."""
    begun = read_imatrix(path)
    if not run or begun.run != run:
        raise RequestError(
            f"{path}: cannot go on: it is of another text, model or settings than asked for now, or of several runs; "
            "write to another file, or merge with it (--in-file)"
        )
    return begun


def _save(found: Imatrix, merge_with: Sequence[Imatrix], path: Path) -> int:
    write_imatrix(merge([*merge_with, found]) if merge_with else found, path)
    return found.chunk_count


def collect(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    calibration: Calibration,
    begun: Imatrix,
    watch: Watch | None = None,
) -> Iterator[Imatrix]:
    """Answer prompt after prompt, and yield what is collected after each, with ``begun`` in it.

    engine: made with ``exact=True``. begun: empty, or of an earlier run over the first ``begun.chunk_count`` of these
    prompts, which are not answered again. Raises RequestError where activations are beyond what a
    file holds.
    """
    done = begun
    session = engine.session()
    session.collect_inputs()
    blocks, steps = -(-calibration.n_predict // engine.info.canvas_length), engine.config.max_denoising_steps
    for index in range(done.chunk_count, len(prompts)):
        session.truncate(0)
        seed = calibration.seed + calibration.first + index
        for event in session.generate(prompts[index], calibration.n_predict, seed):
            if watch is not None and isinstance(event, StepEvent):
                watch(index, len(prompts), (event.block * steps + event.step) / (blocks * steps))
        done = _with(done, session, engine.info.name)
        yield done


def _with(done: Imatrix, session: Session, model: str) -> Imatrix:
    """One piece more."""
    entries = dict(done.entries)
    for name, (squares, rows) in session.take_inputs().items():
        if not (squares <= np.finfo(np.float32).max).all():
            raise RequestError(f"{model}: the inputs of {name} are too large: the model file is damaged")
        new = Inputs(squares, rows.astype(np.float64))
        entries[name] = entries[name] + new if name in entries else new
    return replace(done, entries=entries, chunk_count=done.chunk_count + 1)
