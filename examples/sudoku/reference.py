#!/usr/bin/env python3
"""Puts the held-out puzzles to the reference implementation (needs torch and transformers):

    PYTHONPATH=examples .venv/bin/python -m sudoku.reference examples/sudoku/sudoku_model examples/sudoku/heldout.jsonl

``transformers``' own ``generate``, in float32, with generation_config.json as it is; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import DiffusionGemmaForBlockDiffusion, logging
from transformers.generation import LogitsProcessor, LogitsProcessorList

from dgemma.evaluation import Question, load_questions, wilson_interval
from sudoku.checkpoint import CONFIG
from sudoku.train import MODEL, USER


class StepCounter(LogitsProcessor):
    """The reference asks its logits processors once a denoising step."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, cur_step: int) -> torch.Tensor:
        self.steps += 1
        return scores


def ask(model: DiffusionGemmaForBlockDiffusion, tokenizer: Tokenizer, question: Question) -> tuple[bool, int]:
    """Whether the answer is right, and how many steps it took."""
    prompt = tokenizer.encode(USER + question.prompt + MODEL, add_special_tokens=False).ids
    counter = StepCounter()
    output = model.generate(
        torch.tensor([prompt]), max_new_tokens=CONFIG.canvas, logits_processor=LogitsProcessorList([counter])
    )
    return question.is_right(tokenizer.decode(output.sequences[0, len(prompt) :].tolist())), counter.steps


def solve(folder: Path, questions: Sequence[Question], *, seed: int, threads: int) -> dict[str, Any]:
    """How many of the questions the checkpoint answers rightly, and the steps that each took."""
    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    model = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    model.set_experts_implementation("eager")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    answers = [ask(model, tokenizer, question) for question in questions]
    right, steps = sum(one for one, _ in answers), [count for _, count in answers]
    return {
        "questions": len(answers),
        "right": right,
        "interval": wilson_interval(right, len(answers)),
        "mean_steps": sum(steps) / len(steps),
        "stopped_early": sum(count < CONFIG.sampler.max_denoising_steps for count in steps) / len(steps),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the checkpoint")
    parser.add_argument("data", type=Path, help="JSONL file of questions, as dgemma eval reads it")
    parser.add_argument("--limit", type=int, default=None, help="the first so many questions only")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    args = parser.parse_args()
    questions = load_questions(args.data, args.limit)
    print(json.dumps(solve(args.model, questions, seed=args.seed, threads=args.threads)))


if __name__ == "__main__":
    main()
