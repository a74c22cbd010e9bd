"""The engine and its sessions: a GGUF model ready to answer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import gguf
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._native import core
from .devices import device_request, warn_of_unused_card
from .errors import RequestError
from .events import BlockEvent, DoneEvent, EngineInfo, Event, GenerationConfig, GenerationStats, StepEvent

KvType = Literal["f16", "f32"]
CardLayers = Literal["ggml", "own"]

_LARGEST = 2**31 - 1  # what a C++ int holds


class Session:
    """One conversation: a key/value cache and the two passes over it. Made by ``Engine.session``."""

    def __init__(self, native: core.Session, info: EngineInfo, config: GenerationConfig) -> None:
        self._native = native
        self._info = info
        self._config = config

    @property
    def n_past(self) -> int:
        """How many tokens the cache holds."""
        return self._native.n_past

    def prefill(self, tokens: Sequence[int]) -> None:
        """Encoder pass over ``tokens``, appended to the cache; any length, chunked inside.

        Raises ``ContextError`` if they do not fit (nothing changes then) and ``RequestError`` for an empty sequence or
        an id outside the vocabulary.
        """
        self._native.prefill(_ids(tokens, "tokens"))

    def denoise(self, canvas: Sequence[int], previous: ArrayLike | None = None) -> NDArray[np.float32]:
        """Decoder pass over a canvas of C = ``info.canvas_length`` ids; the cache does not change.

        previous: float32 [C, V], the previous step's logits already divided by its temperature; None on a canvas's
        first step. Returns float32 [C, V]: the logits after the soft-cap and before any temperature.

        Raises ``RequestError`` for a canvas or logits of another shape, ``ContextError`` where the cache is empty or
        has no room for a canvas.
        """
        shape = (self._info.canvas_length, self._info.n_vocab)
        z = None if previous is None else np.ascontiguousarray(previous, dtype=np.float32)
        if z is not None and z.shape != shape:
            raise RequestError(f"previous must have the shape {list(shape)}, not {list(z.shape)}")
        ids = _ids(canvas, "canvas")
        if len(ids) != shape[0]:
            raise RequestError(f"the canvas has {len(ids)} tokens, the model's has {shape[0]}")
        return self._native.denoise(ids, shape[1], z)

    def truncate(self, n: int) -> None:
        """Forgets positions >= n. ``ContextError`` where a sliding layer's ring no longer holds what lies before n."""
        self._native.truncate(n)

    def snapshot(self) -> core.Snapshot:
        """This point of the conversation, to go back to when a ring has moved on: host memory of ``n_bytes``, about the
        window of every sliding layer. It has ``n_past`` and ends with the first encoding before it."""
        return self._native.snapshot()

    def restore(self, snapshot: core.Snapshot) -> None:
        """Back to a snapshot of this session. ``ContextError`` if something was encoded before it since."""
        self._native.restore(snapshot)

    def save(self, path: str | os.PathLike[str], note: str = "") -> None:
        """The cache as a file, with a text of yours; nothing half-written is left.

        Raises ``FileError`` if it cannot be written.
        """
        self._native.save(os.fspath(path), note)

    def load(self, path: str | os.PathLike[str]) -> str:
        """Replaces what the cache holds by a saved one, and returns its text.

        Raises ``FileError`` for a file that is damaged, or saved with another model, cache type or version;
        ``ContextError`` for one that is longer than the context.
        """
        return self._native.load(os.fspath(path))

    def collect_inputs(self) -> None:
        """From here on, whatever this session computes adds to what ``take_inputs`` gives. ``RequestError`` unless the
        engine was made with ``exact=True``: other graphs have products that cannot be looked into."""
        self._native.collect_inputs()

    def take_inputs(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]:
        """The inputs of the products with each weight since ``collect_inputs`` or the last call, by the weight's name:
        their squares summed by column, float64 [matrices, columns], and how many rows that were, int64 [matrices].

        One matrix, or one for each expert, which counts the rows routed to it. They depend on no number of threads.
        """
        return self._native.take_inputs()

    def time_parts(self) -> None:
        """From here on, every pass and step of this session adds to what ``take_parts`` gives; it costs a few percent.
        Ends ``collect_inputs``."""
        self._native.time_parts()

    def take_parts(self) -> dict[str, float]:
        """Seconds since ``time_parts`` or the last call, by part: embedding, self_conditioning, attention, router,
        experts, dense_ffn, head, sampler (which only ``generate`` runs)."""
        return self._native.take_parts()

    def generate(
        self,
        tokens: Sequence[int] = (),
        max_new_tokens: int = 256,
        seed: int = 0,
        config: GenerationConfig | None = None,
    ) -> Iterator[Event]:
        """Encodes ``tokens`` after what the cache holds and answers, block after block.

        Yields a ``StepEvent`` for each denoising step, a ``BlockEvent`` for each finished canvas and one ``DoneEvent``.
        Each finished canvas is encoded once, when another follows it; the last one is not. The same seed gives the same
        tokens on any number of threads. Closing the iterator ends the answer after the step in hand; Ctrl-C ends it
        inside a step with ``KeyboardInterrupt``.
        """
        settings = config or self._config
        if not 0 <= seed < 2**64:
            raise RequestError(f"seed must be between 0 and 2**64 - 1, not {seed}")
        if max_new_tokens < 1:
            raise RequestError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        sampler = core.SamplerConfig(
            max_denoising_steps=settings.max_denoising_steps,
            t_min=settings.t_min,
            t_max=settings.t_max,
            entropy_bound=settings.entropy_bound,
            stability_threshold=settings.stability_threshold,
            confidence_threshold=settings.confidence_threshold,
        )
        native = core.Generation(
            self._native,
            _ids(tokens, "tokens"),
            max_new_tokens=min(max_new_tokens, _LARGEST),
            seed=seed,
            sampler=sampler,
        )
        return _events(native)


class Engine:
    """A DiffusionGemma GGUF, loaded by mmap.

    path: a GGUF file, or any member of a split set. n_ctx: tokens that a session's cache holds;
    None = 8192, or what the model was made for where that is less. n_threads: None = one for each core
    that this process may use, efficiency cores aside. kv_type: "f16" or "f32", of the cache. exact: F32 cache and no
    approximation anywhere, for comparing numbers. n_batch: tokens of one encoder pass; None = 384 where
    our own products multiply every layer's experts on the CPU, 256 elsewhere.

    Where the weights go, as in llama.cpp (docs/devices.md): n_gpu_layers: the head and this many less one of the last
    layers go to GPUs, -1 = as much as fits, 0 = CPU only. n_cpu_moe: the experts of this many of the first layers stay
    on the CPU, -1 = of all. override_tensor: "PATTERN=DEVICE", one or several: matrices whose name the regular
    expression finds, as in "exps=CPU". tensor_split: how many layers each GPU gets, as proportions; by free memory if
    empty. main_gpu: the one GPU to use, counted from 0; None = all. card_layers: whose CUDA kernels compute
    all but the attention where one card holds the whole model, "ggml" or "own" (docs/cuda.md); the attribute says
    which do.

    Raises ``ModelFileError`` for a file that cannot be used, ``RequestError`` for an argument out of range or more than
    the GPUs hold, ``BackendError`` where a device fails or memory does not suffice. Warns (``UserWarning``) of what was
    asked for and cannot be had: layers on a GPU where there is none; and of a GPU that is there and not used, or not as
    well as it could be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_ctx: int | None = None,
        n_gpu_layers: int = -1,
        n_threads: int | None = None,
        kv_type: KvType = "f16",
        exact: bool = False,
        n_batch: int | None = None,
        *,
        n_cpu_moe: int = 0,
        override_tensor: str | Sequence[str] = (),
        tensor_split: Sequence[float] = (),
        main_gpu: int | None = None,
        card_layers: CardLayers = "ggml",
    ) -> None:
        if kv_type not in ("f16", "f32"):
            raise RequestError(f'kv_type must be "f16" or "f32", not {kv_type!r}: other types lose the attention')
        if card_layers not in ("ggml", "own"):
            raise RequestError(f'card_layers must be "ggml" or "own", not {card_layers!r}')
        for name, value in (("n_ctx", n_ctx), ("n_threads", n_threads), ("n_batch", n_batch)):
            _check_count(name, value)
        file = os.fspath(Path(path).expanduser())
        self._config = GenerationConfig.from_metadata(core.read_gguf(file).metadata, file)
        self._native: core.Engine | None = core.Engine(
            file,
            n_ctx=n_ctx or 0,
            n_threads=n_threads or 0,
            n_batch=n_batch or 0,
            kv_f32=kv_type == "f32",
            exact=exact,
            own_card_layers=card_layers == "own",
            devices=device_request(n_gpu_layers, n_cpu_moe, override_tensor, tensor_split, main_gpu),
        )
        for note in self._native.plan().notes:
            warnings.warn(note, stacklevel=2)
        warn_of_unused_card(n_gpu_layers, stacklevel=2)
        self.n_ctx = self._native.n_ctx
        self.n_batch = self._native.n_batch
        self.n_threads = self._native.n_threads
        self.card_layers: CardLayers = "own" if self._native.plan().own_card_layers else "ggml"
        self.info = _info(self._native.info)

    @property
    def config(self) -> GenerationConfig:
        """The sampler's numbers as the file gives them."""
        return self._config

    @property
    def memory(self) -> dict[str, dict[str, int]]:
        """Bytes by device and purpose: weights; kv, compute and sampler of every living session, or of one to come."""
        return self._open().memory()

    @property
    def plan(self) -> core.DevicePlan:
        """Where the model was put, as it was planned before anything was allocated."""
        return self._open().plan()

    def session(self) -> Session:
        """A new conversation with a cache of its own."""
        return Session(self._open().session(), self.info, self._config)

    def generate(
        self,
        tokens: Sequence[int],
        max_new_tokens: int = 256,
        seed: int = 0,
        config: GenerationConfig | None = None,
    ) -> Iterator[Event]:
        """Answers a prompt in a session of its own; see ``Session.generate``."""
        return self.session().generate(tokens, max_new_tokens=max_new_tokens, seed=seed, config=config)

    def close(self) -> None:
        """Lets go of the model; its memory is free once no session of it lives. Closing twice is fine."""
        self._native = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> core.Engine:
        if self._native is None:
            raise RequestError("the engine is closed")
        return self._native


def _events(native: core.Generation) -> Iterator[Event]:
    while (event := native.next()) is not None:
        if isinstance(event, core.StepEvent):
            yield StepEvent(
                event.block, event.step, event.temperature, event.canvas, event.accepted, event.entropy, event.argmax
            )
        elif isinstance(event, core.BlockEvent):
            yield BlockEvent(event.block, event.tokens)
        else:
            yield DoneEvent(event.reason, event.end_token, _stats(event.stats))


def _stats(stats: core.GenerationStats) -> GenerationStats:
    return GenerationStats(
        prompt_tokens=stats.prompt_tokens,
        new_tokens=stats.new_tokens,
        blocks=stats.blocks,
        steps=stats.steps,
        encode_seconds=stats.encode_seconds,
        denoise_seconds=stats.denoise_seconds,
        wall_seconds=stats.wall_seconds,
    )


def _info(info: core.ModelInfo) -> EngineInfo:
    return EngineInfo(
        n_layer=info.n_layer,
        n_embd=info.n_embd,
        n_vocab=info.n_vocab,
        n_expert=info.n_expert,
        n_expert_used=info.n_expert_used,
        n_head=info.n_head,
        canvas_length=info.canvas_length,
        sliding_window=info.sliding_window,
        context_length=info.context_length,
        eos_ids=tuple(info.eos_ids),
        file_type=_file_type_name(info.file_type),
        name=info.name,
        n_params=info.n_params,
        n_bytes=info.n_bytes,
    )


def _file_type_name(value: int) -> str:
    try:
        return gguf.LlamaFileType(value).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "unknown"


def _ids(tokens: Sequence[int], what: str) -> list[int]:
    """Token ids as plain ints that C++ can take; whether they are in the vocabulary is checked there."""
    try:
        ids = [int(token) for token in tokens]
    except (TypeError, ValueError):
        raise RequestError(f"{what} must be a sequence of token ids") from None
    for index, token in enumerate(ids):
        if not -(2**31) <= token < 2**31:
            raise RequestError(f"{what}: {token} at index {index} is no token id")
    return ids


def _check_count(name: str, value: int | None) -> None:
    if value is not None and not 1 <= value <= _LARGEST:
        raise RequestError(f"{name} must be at {'least 1' if value < 1 else f'most {_LARGEST}'}, not {value}")
