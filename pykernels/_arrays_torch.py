"""What the thin layer needs to know of an array, for torch."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch

from ._arrays import FLOAT8, FLOATING, INTEGERS
from ._arrays import dtype_of as numpy_dtype

_FLOAT8 = tuple(name for name in FLOAT8.values() if hasattr(torch, name))
_BY_NAME = {name: getattr(torch, name) for name in (*FLOATING, *INTEGERS, *_FLOAT8, "uint8", "bool")}
_NAMES = {dtype: name for name, dtype in _BY_NAME.items()}
_CODES = {_BY_NAME[name] for name in _FLOAT8}

tracing = torch.compiler.is_compiling


def operators(family: str) -> Any:
    """The operations of a family as torch operators, for autograd and torch.compile."""
    if family == "quant":
        from .quant import _torch as module
    elif family == "linear":
        from .quant import _linear_torch as module  # type: ignore[no-redef]
    elif family == "search":
        from .search import _torch as module  # type: ignore[no-redef]
    elif family == "tiered":
        from .tiered import _torch as module  # type: ignore[no-redef]
    elif family == "attention":
        from .attention import _torch as module  # type: ignore[no-redef]
    else:
        from .topk import _torch as module  # type: ignore[no-redef]
    return module


def needs_gradient(x: torch.Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def capturing(x: torch.Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def state(x: torch.Tensor) -> Any:
    return x.data_ptr(), 0 if x.is_inference() else x._version


def device(x: torch.Tensor) -> str:
    return x.device.type


def dtype_name(x: torch.Tensor) -> str:
    return _NAMES.get(x.dtype) or str(x.dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    return _BY_NAME[name]  # type: ignore[no-any-return]


def is_dense(x: torch.Tensor) -> bool:
    return x.is_contiguous()


def dense(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous()


def is_strided(x: torch.Tensor) -> bool:
    return x.stride(-1) == 1


def strided(x: torch.Tensor, backend: str) -> Any:
    if x.requires_grad:
        x = x.detach()
    if x.stride(-1) != 1:
        x = x.clone(memory_format=torch.contiguous_format)
    return x if backend == "gpu" else _numpy_view(x)


def strides(x: torch.Tensor) -> tuple[int, ...]:
    return x.stride()


def expand(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return x.expand(shape)


def permute(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    return x.permute(axes)


def allocate(shape: tuple[int, ...], name: str, like: torch.Tensor, backend: str) -> tuple[torch.Tensor, Any]:
    """A tensor to fill, and how the launchers of the backend take it."""
    if backend == "gpu":
        tensor = torch.empty(shape, dtype=_BY_NAME[name], device=like.device)
        return tensor, raw(tensor, backend)
    array = np.empty(shape, numpy_dtype(name))
    if name in _FLOAT8:
        array = array.view(np.uint8)
        return torch.from_numpy(array).view(_BY_NAME[name]), array
    if name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16), array
    return torch.from_numpy(array), array


def writeable(x: torch.Tensor) -> bool:
    return not needs_gradient(x)


def copy_into(out: torch.Tensor, value: torch.Tensor) -> None:
    out.copy_(value)


def cast(x: torch.Tensor, name: str) -> torch.Tensor:
    return x.to(_BY_NAME[name])


def overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the address ranges meet; torch has no exact test. In a graph writing comes last and harms nothing."""
    if a.device != b.device or tracing():
        return False
    first, last = _addresses(a), _addresses(b)
    return first[0] < last[1] and last[0] < first[1]


def _addresses(x: torch.Tensor) -> tuple[int, int]:
    if x.is_contiguous():
        return x.data_ptr(), x.data_ptr() + x.nbytes
    if x.numel() == 0:
        return 0, 0
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (reach + 1) * x.element_size()


def to_numpy(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """A NumPy array of the same values; ml_dtypes stand in for the types NumPy lacks."""
    x = x.detach().cpu().contiguous()
    if x.dtype in _CODES:
        return x.view(torch.uint8).numpy().view(numpy_dtype(_NAMES[x.dtype]))
    return _numpy_view(x)


def from_numpy(value: np.ndarray[Any, Any], like: torch.Tensor) -> torch.Tensor:
    if value.dtype.name not in (*_FLOAT8, "bfloat16"):
        return torch.from_numpy(value).to(like.device)
    carrier = torch.from_numpy(value.view(f"i{value.dtype.itemsize}"))
    return carrier.view(_BY_NAME[value.dtype.name]).to(like.device)


def _numpy_view(x: torch.Tensor) -> np.ndarray[Any, Any]:
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def raw(x: torch.Tensor, backend: str, shape: tuple[int, ...] | None = None) -> Any:
    """The dense `x` as the launchers of a backend take it, in another shape if need be; bytes for float8."""
    if x.requires_grad:
        x = x.detach()
    if x.dtype in _CODES:
        x = x.view(torch.uint8)
    array = x if backend == "gpu" else _numpy_view(x)
    return array if shape is None else array.reshape(shape)
