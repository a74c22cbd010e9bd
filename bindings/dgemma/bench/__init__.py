"""How fast a model runs on this machine, and how near that is to what the machine can do.

    from dgemma.bench import Plan, measure
    report = measure("model.gguf", Plan(prompt_tokens=(256,), steps=4))

Nothing is printed; docs/performance.md says what each figure means.
"""

from .comparing import Change, compare_reports, differences
from .measuring import ROWS, Plan, measure

__all__ = ["ROWS", "Change", "Plan", "compare_reports", "differences", "measure"]
