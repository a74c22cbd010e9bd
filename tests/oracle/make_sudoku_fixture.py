"""Remakes the fixture of the trained model: PYTHONPATH=tests:examples python -m oracle.make_sudoku_fixture

``transformers`` solves held-out puzzles with the engine's own random numbers (Philox, by seed), so that the engine must
take the same decisions, step by step. S puzzles, T steps over all of them, C canvas:

    question, seed [S]       line of heldout.jsonl from 0, and the seed
    puzzle     [T]           0 … S-1, whose step it is
    canvas     [T, C]        what the decoder read
    argmax     [T, C]        the draft
    accepted   [T, C]        bool
    entropy    [T, C]        nats
    stopped    [T]           bool: the stop rule fired
Seeds are chosen so that no decision hangs on rounding: see SAFE.
"""

from __future__ import annotations

from itertools import count

import numpy as np
import torch
from engine.philox import EngineRandom
from tokenizers import Tokenizer
from transformers.generation import LogitsProcessorList

from dgemma.demo import checkpoint
from dgemma.evaluation import load_questions
from oracle.cases import FIXTURES
from oracle.make_fixtures import Recorder, load_model, recording
from sudoku.checkpoint import CONFIG, HELD_OUT
from sudoku.train import MODEL, USER

QUESTIONS = range(0, 1000, 125)
SAFE = 1e-4  # least distance of every decision from its border: thirty times what float32 rounding moves it
KEPT = ("canvas", "argmax", "accepted", "entropy", "stopped")


class EngineRecorder(Recorder):
    """Supplies the numbers that the engine would draw for a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.default_rng(), CONFIG.vocab)
        self.random = EngineRandom(seed, CONFIG.canvas, CONFIG.vocab)
        self.random.begin_block()

    def noise(self, length: int) -> torch.Tensor:
        return torch.from_numpy(self.random.noise().astype(np.int64))[None]

    def multinomial(self, probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        """For each position the first token at which the cumulative probability exceeds u."""
        assert num_samples == 1
        u = self.random.uniform()[:, None]
        edges = np.cumsum(probabilities.numpy().astype(np.float64), axis=-1)
        edges /= edges[:, -1:]
        sampled = (edges <= u).sum(axis=-1)
        self.note(sampled=sampled, u=u[:, 0], sample_gap=np.abs(edges - u).min(axis=-1))
        return torch.from_numpy(sampled)[:, None]

    def is_safe(self) -> bool:
        """Whether an engine that rounds otherwise must decide alike; a draw that was not accepted decides nothing."""
        for step in self.steps:
            drawn = step["sample_gap"][step["accepted"]].min()
            if min(drawn, step["accept_gap"], step["argmax_gap"].min()) < SAFE:
                return False
        return True


def steps_of(model, prompt: list[int], seed: int) -> EngineRecorder:
    recorder = EngineRecorder(seed)
    with recording(model, recorder):
        model.generate(
            torch.tensor([prompt]),
            max_new_tokens=CONFIG.canvas,
            logits_processor=LogitsProcessorList([recorder]),
        )
    return recorder


def make() -> dict[str, np.ndarray]:
    """The fixture's arrays."""
    model, tokenizer = load_model(checkpoint()), Tokenizer.from_file(str(checkpoint() / "tokenizer.json"))
    questions = load_questions(HELD_OUT)
    seeds, puzzle, steps = [], [], []
    for number, question in enumerate(QUESTIONS):
        prompt = tokenizer.encode(USER + questions[question].prompt + MODEL, add_special_tokens=False).ids
        recorder = next(made for seed in count() if (made := steps_of(model, prompt, seed)).is_safe())
        seeds.append(recorder.random.seed)
        puzzle += [number] * len(recorder.steps)
        steps += recorder.steps
    arrays = {name: np.stack([step[name] for step in steps]) for name in KEPT}
    arrays |= {"question": np.array(QUESTIONS), "seed": np.array(seeds), "puzzle": np.array(puzzle)}
    return {name: a.astype(np.int16) if a.dtype == np.int64 else a for name, a in arrays.items()}


def main() -> None:
    arrays = make()
    np.savez_compressed(FIXTURES / "sudoku.npz", **arrays)
    print(f"{len(arrays['puzzle'])} steps of {len(arrays['seed'])} puzzles, seeds {arrays['seed'].tolist()}")


if __name__ == "__main__":
    main()
