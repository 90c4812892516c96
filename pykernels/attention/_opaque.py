"""What torch.compile does not look into."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def opaque(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, at which torch.compile breaks its graph, or fails if asked for a full one.

    It would trace the bookkeeping of a cache, which is NumPy, and guard every number of it.
    """
    hidden: Any = None

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal hidden
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if hidden is None:
            hidden = sys.modules["torch"].compiler.disable(function)
        result: R = hidden(*args, **kwargs)
        return result

    return call
