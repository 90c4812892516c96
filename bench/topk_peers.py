"""What selects the k best without this library: torch.topk, and NumPy's argpartition.

argpartition leaves its part unordered and has no values, so the same work takes it a gather and a sort.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@functools.cache
def absent() -> dict[str, str]:
    """Why a peer cannot run here."""
    return {} if importlib.util.find_spec("torch") else {"torch.topk": "torch is not installed"}


def torch_topk(x: Array, k: int, values: Array, indices: Array) -> Callable[[], object]:
    """torch.topk of each row of `x` into `values` and `indices`."""
    torch: Any = importlib.import_module("torch")
    out = (torch.from_numpy(values), torch.from_numpy(indices))
    return functools.partial(torch.topk, torch.from_numpy(x), k, out=out)


def argpartition(x: Array, k: int, values: Array, indices: Array) -> Callable[[], object]:
    """The same by NumPy; only the result has a place of its own."""

    def run() -> None:
        part = np.argpartition(x, x.shape[1] - k, axis=1)[:, x.shape[1] - k :]
        chosen = np.take_along_axis(x, part, axis=1)
        order = np.argsort(chosen, axis=1)[:, ::-1]
        values[:] = np.take_along_axis(chosen, order, axis=1)
        indices[:] = np.take_along_axis(part, order, axis=1)

    return run
