"""Checks of what users pass, and the errors that name it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from . import _arrays

INT64_MAX = int(np.iinfo(np.int64).max)


def choice(name: str, value: Any, accepted: Iterable[str]) -> Any:
    accepted = tuple(accepted)
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: expected a string, one of {', '.join(accepted)}")
    if value not in accepted:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(accepted)}")
    return value


def axis(value: Any, ndim: int, name: str = "axis") -> int:
    """`value` as a non-negative axis of an array of `ndim` dimensions."""
    if not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: expected an integer")
    if not -ndim <= int(value) < ndim:
        raise ValueError(f"{name}={value!r}: expected an axis of an array of {ndim} dimensions")
    return int(value) % ndim


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as an int from `low` to `high`, both included."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected an integer")
    number = int(value)
    if number < low or (high is not None and number > high):
        accepted = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name}={value!r}: expected an integer {accepted}")
    return number


def integers(name: str, ids: Any) -> np.ndarray[Any, Any]:
    """`ids` as a vector of int64."""
    value, kind = _arrays.namespace(ids)
    given = np.asarray(kind.to_numpy(value))
    if given.size == 0 and isinstance(ids, (list, tuple)):
        given = given.astype(np.int64)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {given.dtype.name}: expected integers")
    if given.ndim != 1:
        raise ValueError(f"{name} has shape {given.shape}: expected (n,)")
    if given.dtype.kind == "u" and given.size and given.max() > INT64_MAX:
        raise ValueError(f"{name} has {given.max()}: expected integers below 2**63")
    return given.astype(np.int64)


def recall_target(value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"recall_target={value!r}: expected a number in (0, 1]")
    if not 0 < float(value) <= 1:
        raise ValueError(f"recall_target={value!r}: expected a number in (0, 1]")
    return float(value)


def dtype_name(arrays: Any, x: Any, accepted: tuple[str, ...], name: str = "x") -> str:
    """The name of the dtype of `x`, one of those accepted."""
    dtype: str = arrays.dtype_name(x)
    if dtype not in accepted:
        raise TypeError(f"{name} has dtype {dtype}: expected one of {', '.join(accepted)}")
    return dtype


def floating(arrays: Any, x: Any, name: str = "x") -> str:
    """The name of the dtype of `x`, one of the floating-point types that kernels read."""
    return dtype_name(arrays, x, _arrays.FLOATING, name)


def floating_name(dtype: Any, default: str, name: str = "dtype", accepted: tuple[str, ...] = _arrays.FLOATING) -> str:
    """The name of a floating-point dtype given as a name, a NumPy dtype or a torch dtype."""
    if dtype is None:
        return default
    given = dtype if isinstance(dtype, str) else str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if given not in accepted:
        raise TypeError(f"{name}={dtype!r}: expected one of {', '.join(accepted)}")
    return given


def alike(arrays: Any, x: Any, name: str, value: Any, accepted: Iterable[str], of: str = "x") -> Any:
    """`value` as an array of the kind and on the device of `x`, the argument `of`, of an accepted dtype."""
    value, kind = _arrays.namespace(value)
    if kind is not arrays:
        raise TypeError(f"{name} is a {type(value).__name__}: expected a {type(x).__name__}, as {of}")
    dtype = kind.dtype_name(value)
    if dtype not in accepted:
        accepted = tuple(accepted)
        listed = f"one of {', '.join(accepted)}" if len(accepted) > 1 else accepted[0]
        raise TypeError(f"{name} has dtype {dtype}: expected {listed}")
    if getattr(value, "device", None) != getattr(x, "device", None):
        raise ValueError(f"{name} is on device {value.device}: expected {x.device}, as {of}")
    return value


def check_shapes(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise ValueError if names or shapes of tensors differ, naming all that do."""
    wrong = [
        f"{name} {given[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    parts = {
        "missing": [name for name in expected if name not in given],
        "extra": [name for name in given if name not in expected],
        "misshapen": wrong,
    }
    if listed := "; ".join(f"{label}: {', '.join(names)}" for label, names in parts.items() if names):
        raise ValueError(f"{what}: {listed}")


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


def check_out_pair(
    arrays: Any, out: Any, shape: tuple[int, ...], dtypes: tuple[str, str], sources: tuple[Any, ...]
) -> None:
    """Refuse what is no pair of separate arrays, each as `check_out` has it for all of the `sources`."""
    if not isinstance(out, tuple | list) or len(out) != 2:
        length = f" of length {len(out)}" if isinstance(out, tuple | list) else ""
        raise TypeError(f"out is a {type(out).__name__}{length}: expected a pair of arrays")
    for source in sources:
        check_out(arrays, out[0], shape, dtypes[0], source, "out[0]")
        check_out(arrays, out[1], shape, dtypes[1], source, "out[1]")
    if arrays.overlap(*out):
        raise ValueError("out[0] shares memory with out[1]: expected arrays of their own")


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
