"""Exact brute-force search fused with top-k selection, an index of rows that come and go, and MaxSim.

The definitions are in `pykernels.kernels.search`. `pykernels.search.neighbors` has the estimator for
scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._index import Index as Index
    from ._knn import knn as knn
    from ._maxsim import maxsim as maxsim
    from .sharded import sharded_knn as sharded_knn

_HOMES = {"Index": "_index", "knn": "_knn", "maxsim": "_maxsim", "sharded_knn": "sharded"}
__all__ = ["Index", "knn", "maxsim", "sharded_knn"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
