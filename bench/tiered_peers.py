"""What does the work of 3T without this library: PyTorch as published, PyTorch as its experts write it, and OpenMM.

All are written from the definition. PyTorch as published moves one group after the other on a tape and
measures all N x N distances; vectorised, it treats all groups of all conformations at once and has closed
forms for the pairs, in blocks that stay in cache. OpenMM computes one conformation after the other.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

PUBLISHED, VECTORISED, OPENMM = "torch by group", "torch vectorised", "OpenMM CPU"
PACKAGES = {PUBLISHED: "torch", VECTORISED: "torch", OPENMM: "openmm"}


@functools.cache
def absent() -> dict[str, str]:
    """Why a peer cannot run here."""
    return {
        name: f"{package} is not installed"
        for name, package in PACKAGES.items()
        if importlib.util.find_spec(package) is None
    }


def transform(
    name: str, arrays: Arrays, parameters: Sequence[Array], positions: Array, grad: Array
) -> Callable[[], Any]:
    """Transformed positions (B, N, 3), and the list of gradients of parameters and positions."""
    torch = importlib.import_module("pykernels.bench.tiered_torch")
    move = torch.group_by_group(arrays) if name == PUBLISHED else torch.all_groups(arrays)
    run: Callable[[], Any] = torch.forward_backward(move, parameters, positions, grad)
    return run


def energy(name: str, arrays: Arrays, positions: Array) -> Callable[[], tuple[Array, Array]]:
    """Totals (B,) and gradients (B, N, 3); those of fixed atoms may lack each other."""
    run: Callable[[], tuple[Array, Array]]
    if name == OPENMM:
        run = importlib.import_module("pykernels.bench.tiered_openmm").energy_and_gradient(arrays, positions)
    else:
        torch = importlib.import_module("pykernels.bench.tiered_torch")
        run = torch.energy_and_gradient(_torch_energy(name, arrays), positions)
    return run


def step(name: str, arrays: Arrays, parameters: Sequence[Array], positions: Array, rate: float) -> Callable[[], Array]:
    """Each call is a step of Adam on parameters and positions, and returns the energies (B,) before it."""
    torch = importlib.import_module("pykernels.bench.tiered_torch")
    move = torch.group_by_group(arrays) if name == PUBLISHED else torch.all_groups(arrays)
    run: Callable[[], Array] = torch.descent(move, _torch_energy(name, arrays), arrays, parameters, positions, rate)
    return run


def _torch_energy(name: str, arrays: Arrays) -> Any:
    torch = importlib.import_module("pykernels.bench.tiered_torch_energy")
    return (torch.dense if name == PUBLISHED else torch.half_matrix)(arrays)
