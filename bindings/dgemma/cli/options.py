"""The flags of ``dgemma run``, by the names that ``llama-diffusion-cli`` gave them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class Thinking(str, Enum):
    """Whether the model thinks before it answers, and where its thoughts are seen."""

    off = "off"
    on = "on"
    hide = "hide"
    show = "show"

    @property
    def wanted(self) -> bool:
        return self is not Thinking.off


def _option(panel: str, names: str, metavar: str | None, help: str, **more: Any) -> Any:
    return typer.Option(*names.split(), metavar=metavar, help=help, rich_help_panel=panel, **more)


_MODEL = "Model"
ModelPath = Annotated[str | None, _option(_MODEL, "-m --model", "FILE", "A GGUF file, or any file of a split set.")]
HubModel = Annotated[str | None, _option(_MODEL, "-hf --hf-repo", "REPO[:QUANT]", "A model on the hub: see above.")]
Context = Annotated[int | None, _option(_MODEL, "-c --ctx-size", "N", "Room for N tokens; 8192 if absent.", min=1)]
Threads = Annotated[int | None, _option(_MODEL, "-t --threads", "N", "CPU threads; one a core if absent.", min=1)]

_PROMPT = "Prompt"
Prompt = Annotated[str | None, _option(_PROMPT, "-p --prompt", "TEXT", "The prompt. Piped text is put below it.")]
PromptFile = Annotated[Path | None, _option(_PROMPT, "-f --file", "FILE", "Put this file's text below the prompt.")]
System = Annotated[str | None, _option(_PROMPT, "-sys --system-prompt", "TEXT", "How the model should behave.")]
Raw = Annotated[bool, _option(_PROMPT, "--raw", None, "Give the prompt as it is, without template.")]
Chat = Annotated[bool, _option(_PROMPT, "-cnv --conversation", None, "Chat. /help there lists the commands.")]
PromptCache = Annotated[Path | None, _option(_PROMPT, "--prompt-cache", "FILE", "Go on from FILE, and save there.")]

_ANSWER = "Answer"
MaxTokens = Annotated[int, _option(_ANSWER, "-n --n-predict", "N", "At most N tokens of answer.", min=1)]
Seed = Annotated[
    int, _option(_ANSWER, "-s --seed", "N", "Same seed, same answer.", min=-1, max=2**64 - 1, show_default=False)
]
Think = Annotated[Thinking, _option(_ANSWER, "--thinking", None, "Think first; show thoughts on a terminal (on), nowhere (hide), also in a pipe (show).")]  # fmt: skip  # noqa: E501

_DENOISING = "Denoising (as the file says where absent)"
_EB = "--diffusion-eb-"
MaxSteps = Annotated[
    int | None, _option(_DENOISING, f"{_EB}max-steps", "N", "Also --diffusion-steps: for a canvas.", min=1)
]
TMin = Annotated[float | None, _option(_DENOISING, f"{_EB}t-min", "T", "Temperature of the last step.", min=0)]
TMax = Annotated[float | None, _option(_DENOISING, f"{_EB}t-max", "T", "Temperature of the first step.", min=0)]
EntropyBound = Annotated[float | None, _option(_DENOISING, f"{_EB}entropy-bound", "X", "Nats accepted a step.", min=0)]
Stability = Annotated[int | None, _option(_DENOISING, f"{_EB}stability", "N", "Done when unchanged so often.", min=0)]
Confidence = Annotated[float | None, _option(_DENOISING, f"{_EB}confidence", "X", "… and surer than X nats.", min=0)]

_SCREEN = "Output"
Visual = Annotated[bool, _option(_SCREEN, "--diffusion-visual", None, "Watch the canvas settle.")]
VisualInterval = Annotated[
    int, _option(_SCREEN, "--diffusion-visual-interval", "N", "Paint every Nth step only.", min=1)
]
AsJson = Annotated[bool, _option(_SCREEN, "--json", None, "Print JSON at the end.")]
NoColor = Annotated[bool, _option(_SCREEN, "--no-color", None, "No colours; NO_COLOR does the same.")]
