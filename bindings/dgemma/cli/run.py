"""``dgemma run``: a prompt in, an answer out, or a chat. Text goes to stdout, everything else to stderr."""

from __future__ import annotations

import io
import secrets
import sys

import typer

import dgemma

from . import INTERRUPTED
from . import devices as d
from . import options as o
from .prompt import read_prompt
from .settings import Settings


def run(
    model: o.ModelPath = None,
    hub_model: o.HubModel = None,
    context: o.Context = None,
    threads: o.Threads = None,
    gpu_layers: d.GpuLayers = -1,
    cpu_moe_layers: d.CpuMoeLayers = 0,
    cpu_moe: d.CpuMoe = False,
    overrides: d.Overrides = None,
    split: d.Split = None,
    main_gpu: d.MainGpu = None,
    card_layers: d.CardLayers = "ggml",
    numa: d.Numa = None,
    list_devices: d.ListDevices = False,
    prompt: o.Prompt = None,
    file: o.PromptFile = None,
    system: o.System = None,
    raw: o.Raw = False,
    chat: o.Chat = False,
    prompt_cache: o.PromptCache = None,
    max_new_tokens: o.MaxTokens = 512,
    seed: o.Seed = -1,
    thinking: o.Think = o.Thinking.off,
    max_steps: o.MaxSteps = None,
    t_min: o.TMin = None,
    t_max: o.TMax = None,
    entropy_bound: o.EntropyBound = None,
    stability: o.Stability = None,
    confidence: o.Confidence = None,
    visual: o.Visual = False,
    visual_interval: o.VisualInterval = 1,
    as_json: o.AsJson = False,
    no_color: o.NoColor = False,
) -> None:
    """Answer a prompt, or chat (-cnv).

    The answer appears block by block on stdout, everything else on stderr. Ctrl-C stops it and keeps what has arrived.

    -hf names a repository and a quant, as in unsloth/diffusiongemma-26B-A4B-it-GGUF:Q4_K_M; it is downloaded once.
    """
    if raw and (chat or system is not None or thinking.wanted):
        raise typer.BadParameter("--raw leaves out the chat template, which -cnv, -sys and --thinking need")
    if chat and as_json:
        raise typer.BadParameter("--json prints one answer, and -cnv has many")
    text = read_prompt(prompt, file, chat)
    sampler = {
        "max_denoising_steps": max_steps,
        "t_min": t_min,
        "t_max": t_max,
        "entropy_bound": entropy_bound,
        "stability_threshold": stability,
        "confidence_threshold": confidence,
    }
    settings = Settings(
        model=model_path(model, hub_model),
        n_ctx=context,
        devices=d.device_arguments(gpu_layers, cpu_moe_layers, cpu_moe, overrides, split, main_gpu, card_layers),
        n_threads=threads,
        system=system,
        thinking=thinking,
        raw=raw,
        prompt_cache=prompt_cache,
        max_new_tokens=max_new_tokens,
        seed=secrets.randbits(32) if seed < 0 else seed,
        sampler={name: value for name, value in sampler.items() if value is not None},
        visual=visual,
        visual_interval=visual_interval,
        as_json=as_json,
        color=not no_color,
    )
    raise typer.Exit(_answer(text, settings, chat))


def model_path(model: str | None, hub_model: str | None) -> str:
    """The file that -m names, or that -hf finds on the hub."""
    if (model is None) == (hub_model is None):
        raise typer.BadParameter("name the model with -m FILE, or with -hf REPO[:QUANT]; one of them")
    if hub_model is None:
        return str(model)
    from ..hub import resolve

    return str(resolve(hub_model))


def _answer(text: str | None, settings: Settings, chat: bool) -> int:
    """One answer, or a whole chat; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model may write what the terminal's encoding lacks
    tokenizer = dgemma.Tokenizer.from_gguf(settings.model)
    if chat:
        from .chat import chat_with

        return chat_with(tokenizer, settings, text)
    from .oneshot import answer_once

    return INTERRUPTED if answer_once(text or "", tokenizer, settings).reason == "cancelled" else 0
