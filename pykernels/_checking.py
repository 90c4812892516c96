"""What the `checks` modules of the families share: arrays where a backend takes them, compared with the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _arrays
from ._dispatch import interpreting

Array = np.ndarray[Any, Any]


def on(backend: str, x: Array) -> Any:
    """`x` where a backend takes it from: NumPy, or a torch tensor on the GPU."""
    if backend != "gpu":
        return x
    import torch

    from . import _arrays_torch

    like = torch.empty(0, device="cpu" if interpreting() else "cuda")
    return _arrays_torch.from_numpy(np.ascontiguousarray(x).reshape(x.shape), like)


def compare(call: Callable[[str], Any], backend: str) -> tuple[int, int]:
    """How many values a call gives, and in how many a backend differs from the reference."""
    return differences(call(backend), call("reference"))


def differences(got: Any, expected: Any) -> tuple[int, int]:
    """How many values are expected, and how many of those that came differ; signs of zeros count."""
    pairs = (_arrays.namespace(got), _arrays.namespace(expected))
    ours, reference = (np.asarray(arrays.to_numpy(value)) for value, arrays in pairs)
    if ours.shape != reference.shape or ours.dtype != reference.dtype:
        return reference.size, max(reference.size, 1)
    if reference.itemsize == 1:
        return reference.size, int(np.count_nonzero(as_bytes(ours) != as_bytes(reference)))
    if reference.dtype.kind == "i":
        return reference.size, int(np.count_nonzero(ours != reference))
    with np.errstate(invalid="ignore"):
        a, b = ours.astype(np.float64), reference.astype(np.float64)
    same = ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
    return reference.size, int(np.count_nonzero(~same))


def rounded_differences(got: Any, expected: Any, tolerance: float, size: float = 1.0) -> tuple[int, int]:
    """As `differences`, of floats that may be off by `tolerance` times the largest, or `size`; integers may differ."""
    pairs = (_arrays.namespace(got), _arrays.namespace(expected))
    ours, reference = (np.asarray(arrays.to_numpy(value)) for value, arrays in pairs)
    if ours.shape != reference.shape or ours.dtype != reference.dtype:
        return reference.size, max(reference.size, 1)
    if reference.dtype.kind != "f":
        return 0, 0
    finite = np.isfinite(reference)
    size = max(size, float(np.abs(reference[finite]).max(initial=0)))
    off = np.abs(np.where(finite, ours, 0) - np.where(finite, reference, 0))
    close = np.where(finite, off <= tolerance * size, ours == reference)
    return reference.size, int(np.count_nonzero(~close))


def as_bytes(codes: Any) -> Array:
    codes, arrays = _arrays.namespace(codes)
    return np.asarray(arrays.to_numpy(codes)).view(np.uint8)
