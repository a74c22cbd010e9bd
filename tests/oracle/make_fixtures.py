"""Remakes the fixtures from ``transformers``: PYTHONPATH=tests:examples python -m oracle.make_fixtures [NAME …]

What the arrays mean is written in cases.py. Everything random comes from seeded numpy generators, and the checkpoints
from random_checkpoint, so that another run gives the same numbers up to float32 rounding.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from transformers import DiffusionGemmaForBlockDiffusion, logging
from transformers.generation import LogitsProcessor, LogitsProcessorList
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    StableAndConfidentStoppingCriteria,
)

from oracle import make_sampler_fixtures
from oracle.cases import FIXTURES, NETWORK_CASES, TRACES, NetworkCase, Trace, checkpoint_for
from oracle.reference import Reference, replay
from oracle.reference_sampler import Recorded, generate

Arrays = dict[str, np.ndarray]


def load_model(folder: Path) -> DiffusionGemmaForBlockDiffusion:
    """The reference on a checkpoint, in float32, with plain attention."""
    logging.set_verbosity_error()  # it would list the missing tensors of the vision tower
    logging.disable_progress_bar()
    return DiffusionGemmaForBlockDiffusion.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))


# --- network cases --------------------------------------------------------------------------------------------------


@torch.no_grad()
def network_arrays(case: NetworkCase, folder: Path) -> Arrays:
    """Run the reference over a network case."""
    model, rng, config = load_model(folder), generator(case.name), case.config
    ids = lambda *shape: rng.integers(0, config.vocab, shape, dtype=np.int32)  # noqa: E731
    prompt, canvas = ids(case.prompt), ids(case.blocks, case.steps, config.canvas)
    finished = ids(case.blocks - 1, config.canvas)
    rows = np.linspace(0, config.canvas - 1, case.rows or config.canvas).astype(np.int32)
    temperature = np.linspace(0.8, 0.6, case.steps, dtype=np.float32)

    cache = encode(model, prompt, None)
    _check_chunks(model, prompt, case.chunks, canvas[0, 0], decode(model, canvas[0, 0], cache, None))
    logits = []
    for block in range(case.blocks):
        previous = None
        for step in range(case.steps):
            full = decode(model, canvas[block, step], cache, previous)
            previous = full / temperature[step]
            logits.append(full.numpy()[rows])
        if block + 1 < case.blocks:
            cache = encode(model, finished[block], cache)
    arrays = {
        "prompt": prompt,
        "chunks": np.array(case.chunks, dtype=np.int32),
        "canvas": canvas,
        "temperature": temperature,
        "logits": np.stack(logits).reshape(case.blocks, case.steps, len(rows), config.vocab),
        "rows": rows,
        "finished": finished,
    }
    exact = Reference(folder, np.float64)
    rounding = np.abs(replay(exact, SimpleNamespace(**arrays)) - arrays["logits"]).max(axis=(2, 3))
    return arrays | {"rounding": np.float32(rounding), "router_margin": np.float32(exact.router_margin)}


def encode(model, tokens: np.ndarray, cache):
    """Encoder pass; the cache is changed in place and returned."""
    return model.model.encoder(input_ids=_batch(tokens), past_key_values=cache).past_key_values


def decode(model, canvas: np.ndarray, cache, previous: torch.Tensor | None) -> torch.Tensor:
    """Logits [C, V] of a decoder pass."""
    previous = None if previous is None else previous[None]
    return model(past_key_values=cache, decoder_input_ids=_batch(canvas), self_conditioning_logits=previous).logits[0]


def _batch(tokens: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(tokens.astype(np.int64))[None]


def _check_chunks(model, prompt, chunks, canvas, whole: torch.Tensor) -> None:
    """A prompt in pieces is the same prompt: the reference itself must say so before we ask it of the engine."""
    cache = None
    for piece in np.split(prompt, np.cumsum(chunks)[:-1]):
        cache = encode(model, piece, cache)
    difference = (decode(model, canvas, cache, None) - whole).abs().max().item()
    if difference > 1e-4:
        raise AssertionError(f"prompt in pieces {chunks}: logits differ by {difference}")


# --- traces ---------------------------------------------------------------------------------------------------------


class Recorder(LogitsProcessor):
    """Supplies the random numbers of a generation and writes down every decision."""

    def __init__(self, rng: np.random.Generator, vocab: int) -> None:
        self.rng, self.vocab = rng, vocab
        self.blocks = 0
        self.steps: list[dict[str, np.ndarray]] = []

    def __call__(self, input_ids, scores: torch.Tensor, cur_step) -> torch.Tensor:
        """As the first logits processor it sees the logits before their temperature."""
        self.steps.append({"logits": scores[0].numpy().copy(), "block": np.int32(self.blocks - 1)})
        return scores

    def note(self, **arrays) -> None:
        self.steps[-1] |= {name: np.asarray(value) for name, value in arrays.items()}

    def noise(self, length: int) -> torch.Tensor:
        return torch.from_numpy(self.rng.integers(0, self.vocab, length))[None]

    def multinomial(self, probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        """torch.multinomial by numbers that can be written down."""
        assert num_samples == 1
        sampled, u, gap = make_sampler_fixtures.sample(probabilities.numpy(), self.rng)
        self.note(sampled=sampled, u=u, sample_gap=gap)
        return torch.from_numpy(sampled)[:, None]


class RecordingSampler(EntropyBoundSampler):
    """The reference's sampler, with canvases from the recorder's random numbers."""

    recorder: Recorder

    def initialize_canvas(self, batch_size, device):
        self.recorder.blocks += 1
        return self.recorder.noise(self.canvas_length)

    def accept_canvas(self, current_canvas, denoiser_canvas, logits, cur_step):
        result = super().accept_canvas(current_canvas, denoiser_canvas, logits, cur_step)
        raw, processed = self.recorder.steps[-1]["logits"], logits[0].numpy()
        largest = np.sort(processed, axis=-1)
        h = make_sampler_fixtures.entropy(logits)[0].numpy()
        self.recorder.note(
            canvas=current_canvas[0].numpy().copy(),
            temperature=np.float32(np.nanmedian(raw / processed)),
            argmax=processed.argmax(axis=-1),
            argmax_gap=largest[:, -1] - largest[:, -2],
            entropy=h,
            accepted=self.accepted_token_mask[0].numpy().copy(),
            accept_gap=make_sampler_fixtures.accept_gap(h, self.entropy_bound),
        )
        return result

    def renoise_canvas(self, accepted_canvas, cur_step):
        noise = self.recorder.noise(self.canvas_length)
        self.recorder.note(noise=noise[0].numpy())
        return torch.where(self.accepted_token_mask, accepted_canvas, noise)


class RecordingStop(StableAndConfidentStoppingCriteria):
    recorder: Recorder

    def __call__(self, argmax_canvas, logits, **kwargs):
        result = super().__call__(argmax_canvas, logits, **kwargs)
        self.recorder.note(stopped=result[0].numpy())
        return result


@contextmanager
def recording(model, recorder: Recorder) -> Iterator[None]:
    """Within this, model.generate goes through the recorder."""

    def adopt(prepare: Callable, kind: type) -> Callable:
        def adopted(*arguments):
            made = prepare(*arguments)
            made.__class__, made.recorder = kind, recorder
            return made

        return adopted

    with (
        mock.patch.object(model, "_prepare_sampler", adopt(model._prepare_sampler, RecordingSampler)),
        mock.patch.object(
            model,
            "_prepare_diffusion_stopping_criteria",
            adopt(model._prepare_diffusion_stopping_criteria, RecordingStop),
        ),
        mock.patch("torch.multinomial", recorder.multinomial),
    ):
        yield


def trace_arrays(trace: Trace, folder: Path) -> Arrays:
    """Run the reference's own generate over a trace; its sampling numbers come from generation_config.json."""
    model, rng, config = load_model(folder), generator(f"{trace.name} {trace.seed}"), trace.config
    prompt = rng.integers(0, config.vocab, trace.prompt, dtype=np.int32)
    recorder = Recorder(rng, config.vocab)
    with recording(model, recorder):
        output = model.generate(
            _batch(prompt),
            max_new_tokens=trace.blocks * config.canvas,
            logits_processor=LogitsProcessorList([recorder]),
        )
    arrays = {name: np.stack([step[name] for step in recorder.steps]) for name in recorder.steps[0]}
    columns = np.linspace(0, config.vocab - 1, 16).astype(np.int32)
    arrays |= {
        "prompt": prompt,
        "columns": columns,
        "logits": arrays["logits"][:, :, columns],
        "sequence": output.sequences[0].numpy(),
    }
    arrays["rounding"] = _trace_rounding(trace, SimpleNamespace(**arrays), Reference(folder, np.float64))
    return {name: a.astype(np.int32) if a.dtype == np.int64 else a for name, a in arrays.items()}


def _trace_rounding(trace: Trace, arrays: SimpleNamespace, exact: Reference) -> np.ndarray:
    """Largest difference of each step's logits from our reference in float64 on the same random numbers [T]."""
    config = trace.config
    steps = generate(
        exact, arrays.prompt, config.sampler, Recorded(arrays), blocks=trace.blocks, end_tokens=config.end_tokens
    )
    logits = np.stack([step.logits[:, arrays.columns] for step in steps])
    return np.float32(np.abs(logits - arrays.logits).max(axis=(1, 2)))


# --- all of them ----------------------------------------------------------------------------------------------------


def fixtures(folder: Path) -> dict[str, Callable[[], Arrays]]:
    """Every fixture by name, as a function that makes it. folder: where checkpoints may be written."""
    makers: dict[str, Callable[[], Arrays]] = dict(make_sampler_fixtures.FIXTURES)
    for case in NETWORK_CASES:
        makers[case.name] = lambda case=case: network_arrays(case, checkpoint_for(case, folder))
    for trace in TRACES:
        makers[trace.name] = lambda trace=trace: trace_arrays(trace, checkpoint_for(trace, folder))
    return makers


def main() -> None:
    FIXTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        makers = fixtures(Path(folder))
        for name in sys.argv[1:] or makers:
            np.savez_compressed(FIXTURES / f"{name}.npz", **makers[name]())
            print(f"{name}: {(FIXTURES / f'{name}.npz').stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
