"""Arguments of a completion by name: the sampler's own, and those of other samplers, each with what to use instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from .errors import RequestError
from .events import GenerationConfig

_TEMPERATURE = "the temperature falls from step to step: give t_max and t_min"
_CUT = "tokens are chosen by how sure the model is, not by rank: give entropy_bound"
_PENALTY = "the sampler has no penalties; a lower entropy_bound makes it more careful"
_GRAMMAR = "an answer cannot be held to a grammar: say in the prompt what form it should have"
_LOGITS = "a canvas is drawn from all positions at once, and its logits are neither changed nor kept"

_INSTEAD = {
    "temperature dynatemp_range": _TEMPERATURE,
    "top_p top_k min_p typical_p tfs_z xtc_probability mirostat_mode mirostat_tau mirostat_eta": _CUT,
    "repeat_penalty repetition_penalty presence_penalty frequency_penalty": _PENALTY,
    "grammar response_format": _GRAMMAR,
    "logprobs top_logprobs logit_bias logits_processor stopping_criteria": _LOGITS,
    "functions": "give tools",
    "function_call": "give tool_choice",
    "max_new_tokens max_completion_tokens": "give max_tokens",
    "n best_of": "there is one answer to a call: call again with another seed",
    "suffix": "the model writes on from a prompt, not towards an end",
    "steps diffusion_steps": "give max_denoising_steps",
}
_SENTENCES = {name: sentence for names, sentence in _INSTEAD.items() for name in names.split()}
_OWN = {field.name for field in fields(GenerationConfig)}


def sampler_config(base: GenerationConfig, arguments: Mapping[str, Any], function: str) -> GenerationConfig:
    """``base`` with the numbers that ``arguments`` name; None is the same as leaving one out.

    Raises ``RequestError`` for a name that ``function`` does not take, and for a value out of range.
    """
    for name, value in arguments.items():
        if name not in _OWN and name not in _SENTENCES:
            raise RequestError(f"{function} has no argument {name!r}")
        if name in _SENTENCES and value is not None:
            raise RequestError(f"{name} is not an argument of this model: {_SENTENCES[name]}")
    given = {name: value for name, value in arguments.items() if name in _OWN and value is not None}
    return replace(base, **given) if given else base


def stop_strings(stop: object) -> list[str]:
    """``stop`` as a list: one string, several or None."""
    stops = [stop] if isinstance(stop, str) else list(stop) if isinstance(stop, list | tuple) else stop
    if stops is None:
        return []
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise RequestError(f"stop must be a string or a list of strings, none of them empty, not {stop!r:.80}")
    return stops
