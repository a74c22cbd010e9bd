"""Convert and run DiffusionGemma as GGUF.

Names are loaded when first used, so that ``import dgemma.convert`` needs no compiled engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    BackendError,
    Cancelled,
    CheckpointError,
    ContextError,
    Error,
    FileError,
    LibraryError,
    ModelFileError,
    RequestError,
)

if TYPE_CHECKING:
    from .conversation import Conversation, ConversationStats
    from .devices import list_devices, plan_devices, use_numa
    from .diffusion_gemma import DiffusionGemma
    from .engine import Engine, Session
    from .events import BlockEvent, DoneEvent, EngineInfo, GenerationConfig, GenerationStats, StepEvent
    from .sampler import EntropyBoundStep, entropy_bound_step
    from .tokenizer import Tokenizer

_HOMES = {
    "BlockEvent": ".events",
    "Conversation": ".conversation",
    "ConversationStats": ".conversation",
    "DiffusionGemma": ".diffusion_gemma",
    "DoneEvent": ".events",
    "Engine": ".engine",
    "EngineInfo": ".events",
    "EntropyBoundStep": ".sampler",
    "GenerationConfig": ".events",
    "GenerationStats": ".events",
    "Session": ".engine",
    "StepEvent": ".events",
    "Tokenizer": ".tokenizer",
    "entropy_bound_step": ".sampler",
    "list_devices": ".devices",
    "use_numa": ".devices",
    "plan_devices": ".devices",
}

__all__ = [
    "BackendError",
    "BlockEvent",
    "Cancelled",
    "CheckpointError",
    "ContextError",
    "Conversation",
    "ConversationStats",
    "DiffusionGemma",
    "DoneEvent",
    "Engine",
    "EngineInfo",
    "EntropyBoundStep",
    "Error",
    "FileError",
    "GenerationConfig",
    "GenerationStats",
    "LibraryError",
    "ModelFileError",
    "RequestError",
    "Session",
    "StepEvent",
    "Tokenizer",
    "entropy_bound_step",
    "list_devices",
    "plan_devices",
    "use_numa",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
