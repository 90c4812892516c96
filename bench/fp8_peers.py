"""What users without this library would run: torch, eager and compiled, and ml_dtypes.

Every peer writes into memory that it is given, as pykernels does here, and divides and rounds as
the definition says, so that its bytes can be compared.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
LARGEST = {"e4m3fn": 448.0, "e5m2": 57344.0, "int8": 127.0}
CODES = {"e4m3fn": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}


@functools.cache
def absent() -> dict[str, str]:
    """Why a peer cannot run here."""
    if importlib.util.find_spec("torch") is None:
        return dict.fromkeys(("torch", "torch.compile"), "torch is not installed")
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    if not any(compiler and shutil.which(compiler) for compiler in compilers):
        return {"torch.compile": "no C++ compiler found"}
    return {}


def tensor(x: Array) -> Any:
    """A torch tensor on the memory of `x`, also for types that torch does not know by NumPy's name."""
    torch: Any = importlib.import_module("torch")
    names = {
        "bfloat16": "bfloat16",
        "float8_e4m3fn": "float8_e4m3fn",
        "float8_e5m2": "float8_e5m2",
    }
    if x.dtype.name not in names:
        return torch.from_numpy(x)
    return torch.from_numpy(x.view(f"i{x.itemsize}")).view(getattr(torch, names[x.dtype.name]))


def cast(x: Array, out: Array) -> Callable[[], Array]:
    """ml_dtypes: NumPy's own loop over its scalar conversions."""

    def run() -> Array:
        np.copyto(out, x, casting="unsafe")
        return out

    return run


def quantize_fresh(x: Any) -> Any:
    """Bytes of the per-tensor quantized `x`, in the three lines that users write."""
    torch: Any = importlib.import_module("torch")
    scale = x.abs().amax() / LARGEST["e4m3fn"]
    return (x / scale).to(torch.float8_e4m3fn).view(torch.uint8).numpy()


def quantize(granularity: Any, largest: float, dequantize: bool = False) -> Callable[[Any, Any, Any, Any], None]:
    """``f(x, codes, scale, scratch)``: the usual composition for a float32 matrix.

    `scratch` has the size of `x`; it holds what a fused kernel would keep in registers. With
    `dequantize`, the product of codes and scale ends in `scratch`.
    """
    torch: Any = importlib.import_module("torch")
    shape, dims = _blocks(granularity)

    def run(x: Any, codes: Any, scale: Any, scratch: Any) -> None:
        view = x.view(shape(*x.shape))
        work = scratch.view(view.shape)
        torch.abs(view, out=work)
        torch.amax(work, dims, keepdim=True, out=scale)
        if granularity == "mx":
            exponent = torch.frexp(scale).exponent - 1 - 8
            torch.ldexp(torch.ones_like(scale), exponent, out=scale)
            torch.div(view, scale, out=work)
            work.clamp_(-largest, largest)
        else:
            scale.div_(largest)
            torch.div(view, scale, out=work)
        if not codes.is_floating_point():
            work.round_()
        codes.view(view.shape).copy_(work)
        if dequantize:
            work.copy_(codes.view(view.shape))
            work.mul_(scale)

    return run


def fused(granularity: Any, largest: float, dequantize: bool = False) -> Callable[[Any, Any, Any, Any], None]:
    """The same for torch.compile, which needs no scratch but `dequantize`'s result."""
    torch: Any = importlib.import_module("torch")
    torch.compiler.reset()  # every call of `fused` compiles the same code object, and torch gives up after eight
    shape, dims = _blocks(granularity)

    @torch.compile(dynamic=False)  # type: ignore[untyped-decorator]
    def run(x: Any, codes: Any, scale: Any, scratch: Any) -> None:
        view = x.view(shape(*x.shape))
        block_scale = view.abs().amax(dims, keepdim=True)
        if granularity == "mx":
            bits = block_scale.view(torch.int32)
            block_scale = ((bits & 0x7F800000) - (8 << 23)).view(torch.float32)
            rounded = (view / block_scale).clamp(-largest, largest).to(codes.dtype)
        else:
            block_scale = block_scale / largest
            quotient = view / block_scale
            rounded = (quotient if codes.is_floating_point() else quotient.round()).to(codes.dtype)
        scale.copy_(block_scale)
        if dequantize:
            scratch.copy_((rounded.to(torch.float32) * block_scale).view(x.shape))
        else:
            codes.copy_(rounded.view(x.shape))

    return run  # type: ignore[no-any-return]


def scale_shape(granularity: Any, rows: int, columns: int) -> tuple[int, ...]:
    """Shape of the `scale` that the compositions above fill."""
    shape, dims = _blocks(granularity)
    return tuple(1 if i in dims else size for i, size in enumerate(shape(rows, columns)))


def _blocks(granularity: Any) -> tuple[Callable[[int, int], tuple[int, ...]], tuple[int, ...]]:
    """The blocked shape of a matrix, and its dimensions that share a scale."""
    if granularity == "tensor":
        return lambda m, n: (m, n), (0, 1)
    if granularity == "row":
        return lambda m, n: (m, n), (1,)
    if granularity == "column":
        return lambda m, n: (m, n), (0,)
    height, width = (1, 32) if granularity == "mx" else granularity
    return lambda m, n: (m // height, height, n // width, width), (1, 3)
