"""Every backend against the reference, on the user's own machine: what ``pykernels check tiered`` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._checking import Array, on, rounded_differences
from .._dispatch import interpreting, launcher
from ..families import Check
from ..kernels.tiered import cases, energy_cases
from ..kernels.tiered.problem import TERMS
from ._parameters import Parameters
from ._tiers import Tiers
from ._transform import PIVOTS, transform, transform_backward
from .energy._system import converted

TOLERANCES = {"float32": 1e-5, "float64": 1e-13}
"""Of the largest number of the results: rounding of sums over some hundred atoms."""
SYSTEMS = ((12, 8), (100, 100), (300, 170))
"""Atoms, and those of them that move."""
FEW = ("single atoms", "every group an axis")


def checks(exhaustive: bool, backends: Sequence[str]) -> Iterator[Check]:
    """The comparisons; of more conformations and trees if `exhaustive`, of few small ones by an interpreter."""
    for backend in backends:
        if backend == "reference":
            continue
        slow = backend == "gpu" and interpreting()
        for name in FEW if slow else cases.TREES:
            for seed in range(5 if exhaustive and not slow else 1):
                for dtype in TOLERANCES:
                    for batch, shared in ((2, True),) if slow else ((1, True), (3, False)):
                        yield from _moves(name, seed, dtype, batch, shared, backend)
        for atoms, movable in SYSTEMS[:1] if slow else SYSTEMS:
            for dtype in TOLERANCES:
                yield _energy(atoms, movable, dtype, backend)


def _energy(atoms: int, movable: int, dtype: str, backend: str) -> Check:
    """All terms of random atoms, and the gradient."""
    kind = np.dtype(dtype)
    system = energy_cases.system(atoms, movable, dict.fromkeys(energy_cases.CLASSES, atoms), kind)
    positions = cases.positions((2, atoms), kind, 1)

    def call(b: str) -> tuple[Any, ...]:
        there, x = converted(system, lambda value: on(b, value)), on(b, positions)
        terms, gradient = on(b, np.empty((2, len(TERMS)))), on(b, np.empty_like(positions))
        launcher("tiered", b, "energy")(x, there, True, terms, gradient)
        return terms, gradient

    return Check("energy", f"{dtype}, {movable} of {atoms} atoms move", backend, _compared(call, dtype, backend))


def _moves(name: str, seed: int, dtype: str, batch: int, shared: bool, backend: str) -> Iterator[Check]:
    n, options = cases.TREES[name]
    tiers = Tiers(**cases.tiers(n, seed=seed, **options))
    kind = np.dtype(dtype)
    params = cases.motion(batch, tiers.n_groups, tiers.n_axes, tiers.n_macros, kind, seed + 1)
    positions = cases.positions((n,) if shared else (batch, n), kind, seed + 2)
    grad = cases.positions((batch, n), kind, seed + 3)
    case = f"{dtype}, {name}, B {batch}{', positions shared' * shared}, seed {seed}"
    for pivot in PIVOTS:

        def forward(b: str, pivot: str = pivot) -> tuple[Any, ...]:
            return (transform(_on(b, params), tiers, on(b, positions), pivot=pivot, backend=b),)

        def backward(b: str, pivot: str = pivot) -> tuple[Any, ...]:
            given = on(b, grad), _on(b, params), tiers, on(b, positions)
            of_params, of_positions = transform_backward(*given, pivot=pivot, backend=b)
            return *of_params, of_positions

        for call in (forward, backward):
            operation = "transform" if call is forward else "transform_backward"
            yield Check(operation, f"{case}, pivot {pivot}", backend, _compared(call, dtype, backend))


def _on(backend: str, params: Sequence[Array]) -> Parameters:
    return Parameters(*(on(backend, each) for each in params))


def _compared(call: Callable[[str], tuple[Any, ...]], dtype: str, backend: str) -> Callable[[], tuple[int, int]]:
    """All results of a call; some gradients are 0, where rounding is that of the largest."""

    def run() -> tuple[int, int]:
        reference = call("reference")
        size = max((float(np.abs(each).max(initial=0)) for each in reference), default=0.0)
        both = zip(call(backend), reference, strict=True)
        compared = [rounded_differences(got, expected, TOLERANCES[dtype], size) for got, expected in both]
        return sum(n for n, _ in compared), sum(bad for _, bad in compared)

    return run
