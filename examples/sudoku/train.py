#!/usr/bin/env python3
"""Trains the small DiffusionGemma of this folder on Sudoku, from random weights (needs torch and transformers):

    make sudoku          # or: PYTHONPATH=examples .venv/bin/python -m sudoku.train build/sudoku

Uniform-state diffusion. Of a solved grid a random share is replaced by random tokens, and the model learns to say what
stood there. Then it goes on as it will when it is used: the sampler makes the next canvas of what it said, mistakes
included, and so on for a few steps, and the last one is learned from as well, conditioned on the answer before it. So
half of the canvases are self-conditioned, and the model learns to mend its own mistakes.

A run that was stopped goes on where it last saved. The same seed gives the same puzzles and noise, and without
--minutes the same weights up to the rounding of the machine's arithmetic.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, DynamicCache, logging
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaRMSNorm, DiffusionGemmaTextRouter

from dgemma.sudoku import Grid, write
from sudoku.checkpoint import CONFIG, write_files
from sudoku.puzzles import puzzles

MOST_EMPTY = 24  # a little harder than what is tested
WARMUP = 100
ALL_NOISE = 0.5  # share of first canvases that are nothing but noise, as every answer's first is
MOST_STEPS_BETWEEN = 6  # of the sampler, between the two canvases that are learned from
USER, MODEL = "<bos><|turn>user\n", "<turn|>\n<|turn>model\n"
END = "<turn|>"
BALANCE = 0.01  # weight of the loss that keeps all experts at work


# --- data -----------------------------------------------------------------------------------------------------------


def batches(tokenizer: Tokenizer, size: int, seed: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Prompts [B, n] and finished canvases [B, C], the batch of step ``first`` first; no puzzle is used twice but by
    chance."""
    while True:
        stream = puzzles(random.Random(f"{seed} {first}"), held_out=False, most_empty=MOST_EMPTY)
        yield encode(tokenizer, list(islice(stream, size)))
        first += 1


def encode(tokenizer: Tokenizer, pairs: list[tuple[Grid, Grid]]) -> tuple[Tensor, Tensor]:
    def ids(texts: list[str]) -> Tensor:
        return torch.tensor([e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)])

    return ids([USER + write(puzzle) + MODEL for puzzle, _ in pairs]), ids([write(grid) + END for _, grid in pairs])


# --- one step -------------------------------------------------------------------------------------------------------


def noised(canvas: Tensor) -> Tensor:
    """The canvas [B, C] with a random share of each row replaced by uniform random tokens."""
    share = torch.rand(len(canvas), 1)
    share = torch.where(torch.rand_like(share) < ALL_NOISE, 1.0, share)
    return torch.where(torch.rand(canvas.shape) < share, torch.randint(CONFIG.vocab, canvas.shape), canvas)


def next_canvas(z: Tensor) -> Tensor:
    """What the sampler makes of z = logits / temperature [B, C, V]: sure positions are drawn from softmax(z), surest
    first while their entropies add up to no more than the bound, the others are noise."""
    log_p = z.log_softmax(-1)
    entropy, order = (-(log_p.exp() * log_p).sum(-1)).sort(-1)
    accepted = torch.zeros(z.shape[:2], dtype=torch.bool)
    accepted.scatter_(1, order, entropy.cumsum(-1) - entropy <= CONFIG.sampler.entropy_bound)
    drawn = torch.multinomial(log_p.exp().flatten(0, 1), 1).view(z.shape[:2])
    return torch.where(accepted, drawn, torch.randint(CONFIG.vocab, drawn.shape))


def loss_of(model: nn.Module, prompts: Tensor, clean: Tensor) -> Tensor:
    """Mean cross-entropy in nats, over a noised canvas and one that the sampler makes of the answer, a random number of
    steps later. Only those two are learned from: the steps between make the mistakes that the last one must mend."""
    sampler = CONFIG.sampler
    first = model(input_ids=prompts, decoder_input_ids=noised(clean), past_key_values=DynamicCache(config=model.config))
    temperature = sampler.t_min + (sampler.t_max - sampler.t_min) * torch.rand(len(clean), 1, 1)

    def next_step(z: Tensor) -> Tensor:
        canvas = next_canvas(z)
        return model(decoder_input_ids=canvas, past_key_values=first.past_key_values, self_conditioning_logits=z).logits

    z = first.logits.detach() / temperature
    with torch.no_grad():
        for _ in range(int(torch.randint(MOST_STEPS_BETWEEN + 1, ()))):
            z = next_step(z) / temperature
    target = clean.flatten()
    return sum(cross_entropy(logits.flatten(0, 1), target) for logits in (first.logits, next_step(z))) / 2


class Balance:
    """The load-balancing loss of the Switch Transformer (Fedus et al. 2021, eq. 4) over the routers that have run: 1
    where every expert gets as many tokens as any other, the number of experts where one gets all."""

    def __init__(self, model: nn.Module) -> None:
        self.losses: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, DiffusionGemmaTextRouter):
                module.register_forward_hook(self.note)

    def note(self, _module: nn.Module, _args: Any, output: tuple[Tensor, ...]) -> None:
        probabilities, _weights, chosen = output
        if torch.is_grad_enabled():
            self.losses.append(self.of(probabilities, chosen))

    @staticmethod
    def of(probabilities: Tensor, chosen: Tensor) -> Tensor:
        experts = probabilities.shape[-1]
        share = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
        return experts * (share * probabilities.flatten(0, -2).mean(0)).sum()

    def take(self) -> Tensor:
        """Their mean since the last call."""
        losses, self.losses = self.losses, []
        return torch.stack(losses).mean()


# --- the model ------------------------------------------------------------------------------------------------------


def new_model(folder: Path) -> nn.Module:
    """The network of the folder's config.json with random weights; the layers' scalars are learned as well."""
    logging.set_verbosity_error()
    model = DiffusionGemmaForBlockDiffusion(DiffusionGemmaConfig.from_pretrained(folder))
    model.set_experts_implementation("eager")  # three times as fast on a CPU as the default
    for module in model.modules():
        if "layer_scalar" in module._buffers:  # transformers does not train them
            module.layer_scalar = nn.Parameter(module._buffers.pop("layer_scalar"))
    model.model.encoder.vision_tower.requires_grad_(False)
    model.model.encoder.embed_vision.requires_grad_(False)
    torch._dynamo.config.recompile_limit = 64  # one for each of the shapes below
    DiffusionGemmaRMSNorm._norm = torch.compile(DiffusionGemmaRMSNorm._norm, dynamic=False)  # a quarter of a step
    return model.train()


def matrices(model: nn.Module) -> Iterator[tuple[nn.Parameter, list[nn.Parameter]]]:
    """The weights that Muon moves, each with the matrices it consists of (an expert's each its own), which share its
    memory: all but embedding and routers, as Muon is meant for matrices between hidden states."""
    for name, weights in model.named_parameters():
        if weights.requires_grad and weights.ndim > 1 and "embed" not in name and "router" not in name:
            parts = weights.data if weights.ndim == 3 else weights.data[None]
            yield weights, [nn.Parameter(part) for part in parts]


def save_checkpoint(model: nn.Module, folder: Path) -> None:
    """The official layout in bfloat16: our own files, and of what transformers writes the weights."""
    write_files(folder, "bfloat16")
    with tempfile.TemporaryDirectory() as scratch:
        other = DiffusionGemmaForBlockDiffusion(model.config)
        other.load_state_dict(model.state_dict())
        other.to(torch.bfloat16).save_pretrained(scratch)
        shutil.copy(Path(scratch) / "model.safetensors", folder / "model.safetensors")


# --- the run --------------------------------------------------------------------------------------------------------


class Run:
    """Weights, optimiser and random state, saved together so that a stopped run goes on as if it had not been."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        write_files(folder, "bfloat16")
        torch.manual_seed(args.seed)
        self.state, self.args, self.step, self.seconds = folder / "state.pt", args, 0, 0.0
        self.model = new_model(folder)
        self.balance = Balance(self.model)
        self.matrices = dict(matrices(self.model))
        others = [p for p in self.model.parameters() if p.requires_grad and p not in self.matrices]
        parts = [part for parts in self.matrices.values() for part in parts]
        self.optimizers = {
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01): args.rate,
            torch.optim.Muon(parts, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"): args.matrix_rate,
        }
        if self.state.exists():
            saved = torch.load(self.state)
            self.model.load_state_dict(saved["model"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            torch.set_rng_state(saved["random"])
            self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        partial = self.state.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "random": torch.get_rng_state(),
                "step": self.step,
                "seconds": self.seconds,
            },
            partial,
        )
        partial.replace(self.state)

    @property
    def progress(self) -> float:
        """The share of the run that is done, by steps or by time, whichever is more."""
        by_time = self.seconds / (60 * self.args.minutes) if self.args.minutes else 0.0
        return max(self.step / self.args.steps, by_time)

    def advance(self, prompts: Tensor, clean: Tensor) -> float:
        """One step; the rates rise for WARMUP steps and then fall along a cosine to nothing."""
        rise = min(1.0, (self.step + 1) / WARMUP)
        loss = loss_of(self.model, prompts, clean)
        self.model.zero_grad()
        (loss + BALANCE * self.balance.take()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for weights, parts in self.matrices.items():
            for part, grad in zip(parts, weights.grad if weights.ndim == 3 else weights.grad[None], strict=True):
                part.grad = grad
        for optimizer, rate in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * rise * (1 + math.cos(math.pi * min(1.0, self.progress))) / 2
            optimizer.step()
        self.step += 1
        return loss.item()


def train(folder: Path, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, args)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    log = (folder / "log.jsonl").open("a", encoding="utf-8")

    def report(**entry: Any) -> None:
        print(json.dumps(entry), file=log, flush=True)
        print(*(f"{name} {value}" for name, value in entry.items()), flush=True)

    if run.step:
        report(resumed_at=run.step, **settings(args))
    else:
        report(parameters=sum(p.numel() for p in run.model.parameters() if p.requires_grad), **settings(args))
    began, losses = time.monotonic() - run.seconds, []
    for prompts, clean in batches(tokenizer, args.batch, args.seed, run.step):
        losses.append(run.advance(prompts, clean))
        run.seconds = time.monotonic() - began
        if run.step % args.report == 0 or run.progress >= 1:
            report(step=run.step, loss=round(sum(losses) / len(losses), 4), seconds=round(run.seconds))
            losses = []
            run.save()
        if run.progress >= 1:
            break
    save_checkpoint(run.model, folder)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the log begins with: everything that the run depends on, but for where it is written."""
    machine = {
        "torch": torch.__version__,
        "cpu": platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }
    return {name: value for name, value in vars(args).items() if name != "out"} | machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the checkpoint, the log and what a stopped run needs")
    parser.add_argument("--steps", type=int, default=8000, help="how long to train (default 8000)")
    parser.add_argument("--minutes", type=float, default=None, help="end after so long where the steps take longer")
    parser.add_argument("--batch", type=int, default=32, help="puzzles a step, each on two canvases (default 32)")
    parser.add_argument("--rate", type=float, default=2e-3, help="AdamW's highest learning rate (default 0.002)")
    parser.add_argument("--matrix-rate", type=float, default=6e-3, help="Muon's highest learning rate (default 0.006)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, puzzles and noise (default 0)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--report", type=int, default=50, help="log and save every so many steps (default 50)")
    args = parser.parse_args()
    train(args.out, args)


if __name__ == "__main__":
    main()
