"""The fixtures: what was asked of ``transformers``, and what it answered. Needs numpy only.

    from oracle.cases import NETWORK_CASES, checkpoint_for, load_case
    case = load_case("crossing")
    folder = checkpoint_for(case, tmp_path)      # random weights, remade from case.config and case.seed

A case's arrays are attributes. B blocks, S steps a block, C canvas, V vocabulary, n prompt tokens; ids are int32,
logits and everything computed from them float32.

Network cases (NETWORK_CASES): the decoder's logits for given canvases
    prompt     [n]           ids, encoded before block 0 at positions 0 … n-1
    chunks     [pieces]      sizes that add up to n; encoding the prompt in these pieces must change nothing
    canvas     [B, S, C]     what the decoder reads; block b's canvas lies at positions n + b·C … n + (b+1)·C - 1
    temperature [S]          step s > 0 is conditioned on the step before: previous = logits[b][s-1] / temperature[s-1]
                             (the logits of all rows); step 0 of every block has no previous
    logits     [B, S, R, V]  after the soft-cap, before any temperature, at those rows
    rows       [R]           canvas positions recorded (all, unless the case is large)
    finished   [B-1, C]      ids appended by one encode after block b, before block b + 1
    rounding   [B, S]        how far float32 rounding moved these logits: the largest difference from our reference in
                             float64. An engine in float32 rounds otherwise, but no worse: allow ten times this. It
                             grows with s, because a conditioned step feeds on the step before
    router_margin            smallest gap, over all tokens and layers, between the probability of the last expert
                             taken and the first left out: below a thousand times float32 epsilon no tolerance helps

Traces (TRACES): whole generations. Step t counts on through the blocks; T steps in all
    prompt     [n]           ids
    block      [T]           which block a step belongs to
    canvas     [T, C]        what the decoder read; a block's first one is uniform noise
    temperature [T]          what the logits were divided by
    u          [T, C]        float64 in [0, 1): sampled[i] = first token whose cumulative probability exceeds u[i]
    noise      [T, C]        the tokens for renoising: where a position was not accepted, canvas[t+1] has noise[t]
    argmax, sampled [T, C]   ids
    entropy    [T, C]        nats, of softmax(logits / temperature)
    accepted   [T, C]        bool
    stopped    [T]           bool: the stop rule fired at this step (a block also ends after max_denoising_steps)
    columns    [K]           a few token ids
    logits     [T, C, K]     of those tokens, after the soft-cap, before the temperature
    argmax_gap [T, C]        largest minus second largest of logits / temperature: how safe argmax is
    sample_gap [T, C]        how far u is from the nearest edge of its token's interval: how safe sampled is
    accept_gap [T]           smallest |Σ of earlier entropies - entropy_bound|: how safe accepted is
    rounding   [T]           as in network cases
    sequence   [n + B·C]     what the reference returned: prompt and canvases, <pad> after the first end token
A block's result is the argmax of its last step; it is encoded before the next block unless it holds an end token.
Sampling numbers and end tokens are in case.config.sampler and case.config.end_tokens.

Sampler cases (SAMPLER_CASES): single steps on made-up logits, no network
    logits [C, V], temperature, entropy_bound (numbers), u [C], noise [C]
    argmax, sampled, entropy, accepted, next_canvas [C]
Positions of equal entropy: the reference's order among them is left open; ours is the order of the canvas. No fixture
hangs on it.
Other fixtures without a network, described where they are made, in make_sampler_fixtures.py:
    load_arrays("stop_rule"), load_arrays("end_tokens"), load_arrays("temperature")
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from random_checkpoint import CheckpointConfig, SamplerConfig, write_checkpoint

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class NetworkCase:
    """What to ask of the network. ``why`` is the reason for the case to exist."""

    name: str
    why: str
    config: CheckpointConfig
    prompt: int  # tokens
    chunks: tuple[int, ...]
    blocks: int = 2
    steps: int = 2
    rows: int | None = None  # how many of the canvas positions are recorded; None: all
    seed: int = 0


@dataclass(frozen=True)
class Trace:
    """A generation to be recorded."""

    name: str
    why: str
    config: CheckpointConfig
    prompt: int
    blocks: int
    seed: int = 0


TINY = CheckpointConfig()

NETWORK_CASES = (
    NetworkCase("short", "prompt inside the window", TINY, prompt=5, chunks=(2, 3)),
    NetworkCase("long", "prompt beyond the window, in uneven pieces", TINY, prompt=37, chunks=(7, 1, 16, 13)),
    NetworkCase(
        "edge",
        "prompt of exactly the window, odd numbers of heads and experts, five layers, canvas 24",
        replace(
            TINY,
            layers=5,
            full_every=2,
            hidden=72,
            heads=3,
            kv_heads=1,
            kv_heads_full=3,
            experts=7,
            experts_used=3,
            expert_ffn=40,
            canvas=24,
            vocab=523,
        ),
        prompt=8,
        chunks=(8,),
        seed=2,
    ),
    NetworkCase(
        "crossing",
        "the window is passed by the canvases, not by the prompt",
        replace(TINY, window=24),
        prompt=5,
        chunks=(5,),
        blocks=3,
    ),
    NetworkCase(
        "single",
        "one prompt token, an odd canvas",
        replace(TINY, canvas=33, layers=2, full_every=2),
        prompt=1,
        chunks=(1,),
        blocks=1,
        steps=3,
    ),
    NetworkCase(
        "heads256",
        "the real head sizes, 256 and 512, which GPU attention kernels specialise in",
        replace(TINY, layers=2, full_every=2, head_dim=256, head_dim_full=512, heads=4, kv_heads=2, window=16),
        prompt=40,
        chunks=(16, 16, 8),
        seed=5,
    ),
    NetworkCase(
        "hidden256",
        "every row a multiple of 256, so that K-quants apply",
        replace(TINY, hidden=256, ffn=256, expert_ffn=256, experts=4, head_dim=64, head_dim_full=128, window=16),
        prompt=20,
        chunks=(11, 9),
        seed=2,
    ),
    NetworkCase(
        "deep",
        "twelve layers in the official pattern, where rounding adds up",
        replace(TINY, layers=12, full_every=6),
        prompt=21,
        chunks=(10, 11),
        blocks=1,
        steps=3,
        seed=4,
    ),
    NetworkCase(
        "real_window",
        "the real window and canvas, prompt beyond both",
        replace(TINY, window=1024, canvas=256),
        prompt=1500,
        chunks=(512, 512, 476),
        rows=16,
    ),
)

# Sure of itself and slow to change its mind: canvases settle within a few steps.
SHARP = replace(
    TINY,
    logit_spread=2.0,
    branch_gain=0.5,
    sampler=SamplerConfig(max_denoising_steps=12, entropy_bound=2.0, confidence_threshold=0.05),
)

TRACES = (
    Trace(
        "all_steps",
        "never sure: every block takes every step",
        replace(TINY, branch_gain=0.6, sampler=SamplerConfig(6, entropy_bound=6.0)),
        11,
        3,
        seed=5,
    ),
    Trace("early", "the stop rule ends blocks before the last step", SHARP, 11, 3, seed=5),
    Trace(
        "ends",
        "an end token inside the second block: id 50, which only generation_config.json names",
        SHARP,
        11,
        3,
        seed=4,
    ),
)

SAMPLER_CASES = ("flat", "sharp", "mixed", "ties", "bound_0", "one_position", "wide")


def load_arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of a fixture, by name."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        return dict(file)


def load_case(name: str) -> SimpleNamespace:
    """A case of any kind: its arrays, and for network cases and traces also name, config and seed."""
    case = SimpleNamespace(name=name, **load_arrays(name))
    for known in (*NETWORK_CASES, *TRACES):
        if known.name == name:
            case.config, case.seed, case.why = known.config, known.seed, known.why
    return case


def checkpoint_for(case: SimpleNamespace | NetworkCase | Trace, folder: Path, *, spelling: str = "released") -> Path:
    """The float32 checkpoint of a case, written to a folder of its own inside ``folder`` unless it is there already."""
    path = Path(folder) / f"{case.name}-{spelling}"
    if not path.exists():
        write_checkpoint(path, case.config, seed=case.seed, spelling=spelling)
    return path
