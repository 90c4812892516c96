"""What the thin layer needs to know of an array, for NumPy; `_arrays_torch` says the same for torch."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

FLOATING = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64")
FLOAT8 = {
    "e4m3fn": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
    "e4m3fnuz": "float8_e4m3fnuz",
    "e5m2fnuz": "float8_e5m2fnuz",
    "e8m0fnu": "float8_e8m0fnu",
}

_BY_NAME = {name: np.dtype(getattr(ml_dtypes, name)) for name in (*FLOAT8.values(), "bfloat16")}
_BY_NAME |= {name: np.dtype(name) for name in ("float64", "float32", "float16", *INTEGERS, "uint8", "bool")}

_NAMES = {dtype: name for name, dtype in _BY_NAME.items()}
_CODES = {_BY_NAME[name] for name in FLOAT8.values()}
_SELF = sys.modules[__name__]
_TORCH = f"{__name__}_torch"


def namespace(x: Any) -> tuple[Any, Any]:
    """`x` as an array, and the module that handles its kind: this one, or its twin for torch."""
    if isinstance(x, np.ndarray):
        return x, _SELF
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        twin = sys.modules.get(_TORCH)
        if not hasattr(twin, "raw"):  # its last name: another thread may be importing it
            from . import _arrays_torch as twin  # a statement, which torch.compile can trace
        return x, twin
    return np.asarray(x), _SELF


def library(x: Any) -> Any:
    """NumPy or torch, whichever launcher arguments are of."""
    return np if isinstance(x, np.ndarray) else namespace(x)[1].torch


def like(device: Any) -> Any:
    """An empty array of the kind that lives on `device`: a NumPy array for None."""
    if device is None:
        return np.empty(0, np.float32)
    try:
        import torch
    except ModuleNotFoundError as error:
        raise NotImplementedError(f"device={device!r} needs torch, which is not installed here") from error
    try:
        return torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"device={device!r}: expected a torch device of this machine, or None: {error}") from None


def tracing() -> bool:
    return False


def needs_gradient(x: Any) -> bool:
    return False


def capturing(x: Array) -> bool:
    """Whether work on the device of `x` is recorded for later, so that no value can be waited for."""
    return False


def state(x: Array) -> Any:
    """What differs once `x` was written to or moved, where that can be told: None for NumPy arrays."""
    return None


def device(x: Array) -> str:
    return "cpu"


def dtype_name(x: Array) -> str:
    return _NAMES.get(x.dtype) or x.dtype.name


def dtype_of(name: str) -> Any:
    return _BY_NAME[name]


def is_dense(x: Array) -> bool:
    return x.flags.c_contiguous and x.dtype.isnative


def dense(x: Array) -> Array:
    """`x`, or a copy of it, in C order and in the machine's byte order."""
    if is_dense(x):
        return x
    copy: Array = np.ascontiguousarray(x, x.dtype.newbyteorder("=")).reshape(x.shape)
    return copy


def is_strided(x: Array) -> bool:
    """Whether launchers that take strides take `x` as it is: the last axis is contiguous, none runs backwards, and all
    steps are of whole elements, as those of a field of a structured array may not be."""
    whole = x.strides[-1] == x.itemsize and not any(stride % x.itemsize for stride in x.strides)
    return whole and min(x.strides) >= 0 and x.dtype.isnative


def strided(x: Array, backend: str) -> Array:
    """`x`, of one axis at least, as the launchers of a backend take it that take strides; a copy only if need be."""
    return x if is_strided(x) else np.array(x, x.dtype.newbyteorder("="), order="C")


def strides(x: Array) -> tuple[int, ...]:
    return x.strides


def expand(x: Array, shape: tuple[int, ...]) -> Array:
    """A view of `x` in the shape that it broadcasts to."""
    return np.broadcast_to(x, shape)


def permute(x: Array, axes: tuple[int, ...]) -> Array:
    transposed: Array = x.transpose(axes)
    return transposed


def allocate(shape: tuple[int, ...], name: str, like: Array, backend: str) -> tuple[Array, Array]:
    """An array to fill, and how the launchers of the backend take it."""
    array = np.empty(shape, _BY_NAME[name])
    return array, array.view(np.uint8) if array.dtype in _CODES else array


def writeable(x: Array) -> bool:
    return x.flags.writeable


def copy_into(out: Array, value: Array) -> None:
    out[...] = value


def cast(x: Array, name: str) -> Array:
    return x.astype(_BY_NAME[name], copy=False)


def overlap(a: Array, b: Array) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def to_numpy(x: Array) -> Array:
    return x


def from_numpy(value: Array, like: Array) -> Array:
    return value


def raw(x: Array, backend: str, shape: tuple[int, ...] | None = None) -> Any:
    """The dense `x` as the launchers of a backend take it, in another shape if need be; bytes for float8."""
    if x.dtype in _CODES:
        x = x.view(np.uint8)
    return x if shape is None else x.reshape(shape)
