"""Checks of what users pass, and the errors that name it."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from . import _arrays


def choice(name: str, value: Any, accepted: Iterable[str]) -> Any:
    accepted = tuple(accepted)
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: expected a string, one of {', '.join(accepted)}")
    if value not in accepted:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(accepted)}")
    return value


def axis(value: Any, ndim: int) -> int:
    """`value` as a non-negative axis of an array of `ndim` dimensions."""
    if not isinstance(value, Integral):
        raise TypeError(f"axis={value!r}: expected an integer")
    if not -ndim <= int(value) < ndim:
        raise ValueError(f"axis={value!r}: expected an axis of an array of {ndim} dimensions")
    return int(value) % ndim


def floating(arrays: Any, x: Any, name: str = "x") -> str:
    """The name of the dtype of `x`, one of the floating-point types that kernels read."""
    dtype: str = arrays.dtype_name(x)
    if dtype not in _arrays.FLOATING:
        raise TypeError(f"{name} has dtype {dtype}: expected one of {', '.join(_arrays.FLOATING)}")
    return dtype


def floating_name(dtype: Any, default: str) -> str:
    """The name of a floating-point dtype given as a name, a NumPy dtype or a torch dtype."""
    if dtype is None:
        return default
    name = dtype if isinstance(dtype, str) else str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if name not in _arrays.FLOATING:
        raise TypeError(f"dtype={dtype!r}: expected one of {', '.join(_arrays.FLOATING)}")
    return name


def follows_data(backend: Any) -> None:
    """Refuse a backend asked for where the operators of torch.compile choose it."""
    if backend is not None:
        raise NotImplementedError(f"backend={backend!r} under torch.compile: expected None, to follow the data")


def check_out(arrays: Any, out: Any, shape: tuple[int, ...], dtype: str, source: Any, name: str = "out") -> None:
    """Refuse an output of another kind, shape, dtype or device, or one that shares memory with the input."""
    value, kind = _arrays.namespace(out)
    if kind is not arrays or value is not out:
        raise TypeError(f"{name} is a {type(out).__name__}: expected the same kind of array as the input")
    if tuple(out.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(out.shape)}: expected {tuple(shape)}")
    if arrays.dtype_name(out) != dtype:
        raise TypeError(f"{name} has dtype {arrays.dtype_name(out)}: expected {dtype}")
    if arrays.device(out) != arrays.device(source):
        raise ValueError(
            f"{name} is on device {arrays.device(out)!r}: expected {arrays.device(source)!r}, as the input"
        )
    if not arrays.writeable(out):
        raise ValueError(f"{name} is read-only: expected an array that can be written")
    if arrays.overlap(out, source):
        raise ValueError(f"{name} shares memory with the input: expected an array of its own")


def fill(
    arrays: Any, out: Any, shape: tuple[int, ...], dtype: str, source: Any, backend: str, view: Any, run: Any
) -> Any:
    """Have ``run(target)`` fill `out`, or a new array, which its launcher takes in the shape `view`; return it."""
    if out is not None:
        check_out(arrays, out, shape, dtype, source)
        if arrays.is_dense(out):
            run(arrays.raw(out, backend, view))
            return out
    result, target = arrays.allocate(shape, dtype, source, backend)
    run(target if view is None else target.reshape(view))
    if out is None:
        return result
    arrays.copy_into(out, result)
    return out
