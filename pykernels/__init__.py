"""Compiled kernels of research papers, with one documented meaning on NumPy, torch and any GPU."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["attention", "inference", "quant", "search", "tiered", "topk"]

if TYPE_CHECKING:
    from . import attention as attention
    from . import inference as inference
    from . import quant as quant
    from . import search as search
    from . import tiered as tiered
    from . import topk as topk


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
