"""What a quant costs: a model's denoising distributions and answers beside those of another.

    from dgemma.compare import compare
    comparison = compare("model-bf16.gguf", ["model-Q4_K_M.gguf", "model-Q2_K.gguf"])
    for candidate in comparison.candidates:
        print(candidate.model.path, candidate.kl.mean, candidate.agreement.mean)

Nothing is printed: progress goes to a callback, refusals are ``dgemma.Error``. docs/compare.md says what is measured
and why.
"""

from .comparison import LEVELS, compare
from .divergence import Divergence, divergence
from .report import Candidate, Comparison, Estimate, LevelDamage, ModelSummary, RunDamage

__all__ = [
    "LEVELS",
    "Candidate",
    "Comparison",
    "Divergence",
    "Estimate",
    "LevelDamage",
    "ModelSummary",
    "RunDamage",
    "compare",
    "divergence",
]
