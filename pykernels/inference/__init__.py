"""Inference of decoders: models, checkpoints, sampling, continuous batching, and the plan of how to spread them.

The definitions of the kernels are in `pykernels.kernels.decoder`, `linear` and `attention`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import distributed as distributed
    from . import mesh as mesh
    from . import plan as plan
    from ._config import Config as Config
    from ._config import RotaryScaling as RotaryScaling
    from ._decoder import Decoder as Decoder
    from ._engine import Engine as Engine
    from ._generate import generate as generate
    from ._generate import stream as stream
    from ._sampling import Sampling as Sampling
    from ._sampling import sample as sample

_HOMES = {
    "Config": "_config",
    "Decoder": "_decoder",
    "Engine": "_engine",
    "RotaryScaling": "_config",
    "Sampling": "_sampling",
    "generate": "_generate",
    "sample": "_sampling",
    "stream": "_generate",
}
_MODULES = ("distributed", "mesh", "plan")
__all__ = [
    "Config",
    "Decoder",
    "Engine",
    "RotaryScaling",
    "Sampling",
    "distributed",
    "generate",
    "mesh",
    "plan",
    "sample",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
