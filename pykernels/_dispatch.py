"""Which kernels run: those of the device that holds the data, unless `backend=` says otherwise."""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any

BACKENDS = ("reference", "cpu", "gpu")


def choose_backend(arrays: Any, x: Any, backend: str | None) -> str:
    """The backend for `x`; raises where the one asked for cannot take it."""
    device = arrays.device(x)
    if backend is None:
        return "cpu" if device == "cpu" else "gpu"
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}, or None to follow the data")
    if backend == "cpu" and device != "cpu":
        raise NotImplementedError(f"backend='cpu' cannot read x on device {device!r}: move it to the CPU first")
    if backend == "gpu" and device == "cpu" and not (hasattr(arrays, "torch") and interpreting()):
        raise NotImplementedError(
            "backend='gpu' needs a torch tensor on a GPU, or, for a CPU tensor, TRITON_INTERPRET=1 in the "
            f"environment; got an array on device {device!r}"
        )
    return backend


def interpreting() -> bool:
    """Whether Triton kernels run in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


@cache
def launcher(family: str, backend: str, name: str) -> Any:
    """A launcher of ``kernels/<family>/<backend>``; the module is imported when it is first needed."""
    try:
        module = importlib.import_module(f"pykernels.kernels.{family}.{backend}")
    except ModuleNotFoundError as error:
        if error.name not in ("triton", "torch"):
            raise
        raise NotImplementedError(f"backend={backend!r} needs {error.name}, which is not installed here") from error
    return getattr(module, name)
