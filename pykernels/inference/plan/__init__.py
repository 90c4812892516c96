"""How to lay out a large decoder on many chips, and what it takes at least: memory, time and cost.

The analytical model of "Efficiently Scaling Transformer Inference" (arXiv 2211.05102), with exact communication volumes
(`volumes`), every factorisation of the torus, padding, latency of hops, and a calibration from measured times.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._calibrate import Calibration as Calibration
    from ._calibrate import calibrate as calibrate
    from ._chip import Chip as Chip
    from ._crossovers import Crossover as Crossover
    from ._crossovers import crossovers as crossovers
    from ._draw import draw as draw
    from ._efficiency import Efficiency as Efficiency
    from ._efficiency import utilisation as utilisation
    from ._longest import longest_context as longest_context
    from ._model import Model as Model
    from ._pareto import pareto as pareto
    from ._plan import plan as plan
    from ._result import Result as Result
    from ._slice import Slice as Slice

_HOMES = {
    "Calibration": "_calibrate",
    "Chip": "_chip",
    "Crossover": "_crossovers",
    "Efficiency": "_efficiency",
    "Model": "_model",
    "Result": "_result",
    "Slice": "_slice",
    "calibrate": "_calibrate",
    "crossovers": "_crossovers",
    "draw": "_draw",
    "longest_context": "_longest",
    "pareto": "_pareto",
    "plan": "_plan",
    "utilisation": "_efficiency",
}
__all__ = [
    "Calibration",
    "Chip",
    "Crossover",
    "Efficiency",
    "Model",
    "Result",
    "Slice",
    "calibrate",
    "crossovers",
    "draw",
    "longest_context",
    "pareto",
    "plan",
    "utilisation",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
