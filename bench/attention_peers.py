"""Attention without this library, as experts would run it on a CPU: torch's function, with heads folded, and products.

torch's function reads the keys of a group once for each of its query heads. Folded, the heads of a group stand in
its query axis, and the keys are read once. All take and return torch tensors, and allocate what they return.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]

GROUPED, FOLDED, PRODUCTS = "SDPA enable_gqa", "SDPA folded", "folded products"
SDPA = "SDPA"
PRODUCT = "matrix product"
"""The limit that `product_alone` measures."""


@functools.cache
def absent() -> dict[str, str]:
    """Why a peer cannot run here."""
    if importlib.util.find_spec("torch") is not None:
        return {}
    return dict.fromkeys((GROUPED, FOLDED, PRODUCTS, SDPA), "torch is not installed")


def tensor(x: Array) -> Any:
    """The same memory as a tensor."""
    torch: Any = importlib.import_module("torch")
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def decode(name: str, q: Array, k: Array, v: Array) -> Call:
    """One query of each head, (B, Hq, 1, D), against all keys (B, Hkv, S, D)."""
    torch: Any = importlib.import_module("torch")
    run: Any = torch.nn.functional.scaled_dot_product_attention
    if name == GROUPED:
        return functools.partial(run, *map(tensor, (q, k, v)), enable_gqa=True)
    folded = q.reshape(len(q), k.shape[1], -1, q.shape[3])
    attend = run if name == FOLDED else functools.partial(_products, torch)
    call = functools.partial(attend, *map(tensor, (folded, k, v)))
    return lambda: call().view(q.shape)


def prefill(q: Array, k: Array, v: Array, causal: bool) -> Call:
    """Queries and keys of as many heads and of the same length."""
    torch: Any = importlib.import_module("torch")
    run = torch.nn.functional.scaled_dot_product_attention
    return functools.partial(run, *map(tensor, (q, k, v)), is_causal=causal)


def products(q: Array, k: Array, v: Array) -> Call:
    """All scores at once, without a mask."""
    return functools.partial(_products, importlib.import_module("torch"), *map(tensor, (q, k, v)))


def product_alone(dtype: str, flops: int) -> dict[str, Call]:
    """Matrix products that do `flops`, of a cube and of squares of at most 1024: by torch, or by NumPy in float32."""
    calls: dict[str, Call] = {}
    cube = round((flops / 2) ** (1 / 3))
    for side in {cube, min(cube, 1024)}:
        depth = round(flops / (2 * side**2))
        a, b = np.ones((side, depth), np.float32), np.ones((depth, side), np.float32)
        if absent():
            calls[str(side)] = functools.partial(np.matmul, a, b)
        else:
            torch: Any = importlib.import_module("torch")
            calls[str(side)] = functools.partial(torch.mm, *(tensor(x).to(getattr(torch, dtype)) for x in (a, b)))
    return calls


def _products(torch: Any, q: Any, k: Any, v: Any) -> Any:
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    return torch.matmul(torch.softmax(scores, -1), v)
