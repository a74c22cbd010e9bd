"""generation_config.json: the sampler's numbers, and every token that ends an answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf

from .jsonfile import Fields, read_fields, read_optional_fields

GENERATION_FILE, CONFIG_FILE = "generation_config.json", "config.json"
MAX_STEPS = 1 << 16


@dataclass(frozen=True)
class Sampler:
    """The entropy-bound sampler's numbers; the defaults are the released checkpoint's. Entropies are in nats."""

    max_steps: int = 48
    t_max: float = 0.8
    t_min: float = 0.4
    entropy_bound: float = 0.1
    stability_threshold: int = 1
    confidence_threshold: float = 0.005

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        writer.add_uint32("diffusion.eb_max_steps", self.max_steps)
        writer.add_float32("diffusion.eb_t_max", self.t_max)
        writer.add_float32("diffusion.eb_t_min", self.t_min)
        writer.add_float32("diffusion.eb_entropy_bound", self.entropy_bound)
        writer.add_uint32("diffusion.eb_stability_threshold", self.stability_threshold)
        writer.add_float32("diffusion.eb_confidence_threshold", self.confidence_threshold)


def read_sampler(folder: Path) -> Sampler:
    """The sampler of a checkpoint; what generation_config.json leaves out, or is null, has its default."""
    config = read_optional_fields(folder / GENERATION_FILE)
    bound = config.object("sampler_config") if config.has("sampler_config") else Fields(config.source, {})
    default = Sampler()
    return Sampler(
        max_steps=config.integer("max_denoising_steps", 1, MAX_STEPS, default=default.max_steps),
        t_max=config.number("t_max", above=0, default=default.t_max),
        t_min=config.number("t_min", above=0, default=default.t_min),
        entropy_bound=bound.number("entropy_bound", default=default.entropy_bound),
        stability_threshold=config.integer("stability_threshold", 0, MAX_STEPS, default=default.stability_threshold),
        confidence_threshold=config.number("confidence_threshold", default=default.confidence_threshold),
    )


def read_end_tokens(folder: Path, vocab: int) -> tuple[int, ...]:
    """Every token id that ends an answer, in the order in which the files name them; perhaps none.

    The files disagree: in the released checkpoint generation_config.json lists three, config.json two and its
    text_config one. A token that any of them names does end an answer, so all of them count.
    """
    root = read_fields(folder / CONFIG_FILE)
    files = [read_optional_fields(folder / GENERATION_FILE), root, root.object("text_config")]
    ids: list[int] = []
    for fields in files:
        if not fields.has("eos_token_id"):
            continue
        value = fields.get("eos_token_id")
        for token in value if isinstance(value, list) else [value]:
            if type(token) is not int or not 0 <= token < vocab:
                fields.fail("eos_token_id", f"holds {token!r}, which is no token of a vocabulary of {vocab}")
            if token not in ids:
                ids.append(token)
    return tuple(ids)
