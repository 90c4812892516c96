"""``pykernels info``."""

from __future__ import annotations

import importlib
import importlib.util

from pykernels import machine, roofs

_UNITS = {"GEMM": "GFLOP/s"}


def info() -> int:
    """Print what the machine is and what it can do now."""
    if importlib.util.find_spec("torch") is not None:
        importlib.import_module("torch")
    description = machine.describe()
    for package, version in description.pop("versions").items():
        _line(package, version)
    for name, value in description.items():
        _line(name, " ".join(value) if isinstance(value, list) else "none" if value is None else value)
    print("\nmeasured now, all threads (a copy counts bytes read and bytes written)")
    for name, rate in roofs.roofs().items():
        _line(name, f"{rate / 1e9:.1f} {_UNITS.get(name, 'GB/s')}")
    return 0


def _line(name: str, value: object) -> None:
    print(f"{name:<24}{value}")
