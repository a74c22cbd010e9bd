"""Flags of other runners that ``dgemma run`` does not have: each is refused with the one to use in its place."""

from __future__ import annotations

import typer
from typer.core import TyperCommand

_TEMPERATURE = "the temperature falls from step to step: give --diffusion-eb-t-max and --diffusion-eb-t-min"
_CUT = "tokens are chosen by how sure the model is, not by rank: give --diffusion-eb-entropy-bound"
_PENALTY = "the sampler has no penalties; a lower --diffusion-eb-entropy-bound makes it more careful"
_OTHER_SAMPLER = "the model has one sampler, whose numbers are the --diffusion-eb-… flags"
_ALWAYS_ON = "that is always on: leave it out"
_BATCH = "dgemma chooses its batches; -c says how many tokens it has room for"
_TEXT_ONLY = "dgemma reads text only: describe the image in -p"
_SPLIT = "layers are split over GPUs whole: -ts says in which proportions, -mg names a single one"

_INSTEAD = {
    "--temp --temperature --dynatemp-range --dynatemp-exp --diffusion-alg-temp": _TEMPERATURE,
    "--top-k --top-p --min-p --typical --top-n-sigma --xtc-probability --xtc-threshold --mirostat": _CUT,
    "--repeat-penalty --repeat-last-n --presence-penalty --frequency-penalty --dry-multiplier": _PENALTY,
    "--diffusion-eb --diffusion-algorithm --diffusion-eps --diffusion-cfg-scale --samplers": _OTHER_SAMPLER,
    "--diffusion-add-gumbel-noise --diffusion-block-length": _OTHER_SAMPLER,
    "--diffusion-blocks": "-n says how long the answer may be; a block is one canvas, 256 tokens",
    "--diffusion-visual-progress": "--diffusion-visual shows the progress too",
    "--diffusion-kv-cache --diffusion-gpu-sampling --diffusion-gpu-sample-reduce": _ALWAYS_ON,
    "-fa --flash-attn --jinja": _ALWAYS_ON,
    "-b -ub --batch-size --ubatch-size --fit": _BATCH,
    "--mmproj --image": _TEXT_ONLY,
    "-sm --split-mode": _SPLIT,
    "-hff --hf-file": "give the file's name in place of the quant: -hf REPO:FILE",
    "-i --interactive": "-cnv chats",
    "-no-cnv --no-conversation -st --single-turn": "that is what happens without -cnv: leave it out",
    "--reasoning-budget --reasoning-format": "--thinking says whether the model thinks and where it shows",
    "--log-file": "messages go to stderr: end the command with 2> FILE",
}
SENTENCES = {flag: sentence for flags, sentence in _INSTEAD.items() for flag in flags.split()}
_TEXT_FLAGS = {"-p", "--prompt", "-sys", "--system-prompt"}
# Of one flag, kept out of --help.
_SPELLINGS = {"--diffusion-steps": "--diffusion-eb-max-steps", "--gpu-layers": "--n-gpu-layers"}


class RunCommand(TyperCommand):
    """``dgemma run``, with an answer for those who come from another runner."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # it is click's
        known = []
        for before, arg in zip(["", *args], args, strict=False):
            flag, equals, value = arg.partition("=")
            if before in _TEXT_FLAGS:  # a question may be about any flag
                known.append(arg)
                continue
            if flag in SENTENCES:
                raise typer.BadParameter(SENTENCES[flag], ctx=ctx, param_hint=flag)
            known.append(_SPELLINGS.get(flag, flag) + equals + value)
        return super().parse_args(ctx, known)
