"""Workloads of the 3T benchmarks: the transform both ways, the energy of all pairs, and whole steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pykernels import tiered
from pykernels.bench import tiered_data as data
from pykernels.bench import tiered_peers as peers
from pykernels.bench.harness import MIN_ROUNDS, OURS, Disagreement, Group, Workload, rotate, rotations
from pykernels.kernels.tiered import cases, reference

Array = np.ndarray[Any, Any]

RATE = 1e-3
PLACES, ENERGY, GRADIENT = 5e-5, 3e-5, 1e-4
"""Greatest errors of float32: in angstrom; relative; of the norm, for which the input counts as exact."""

LOOSE = {peers.OPENMM: (1e-4, 1e-3)}
"""Its CPU platform holds coordinates in nm as float32, and interpolates a table of inverse square roots."""


def transforming(count: int, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """`transform` and `transform_backward` of `count` conformations, each with positions of its own."""
    system, arrays = data.system()
    sizes = (count, len(arrays["positions"]), _widths(arrays), 4)
    size = cases.min_bytes("transform", *sizes) + cases.min_bytes("transform_backward", *sizes)

    def build() -> Workload:
        tiers = data.tiers(arrays)
        sets = [_motions(arrays, count, seed) for seed in range(rotations(size) if count > 1 else 1)]
        calls: dict[str, Any] = {OURS: rotate([functools.partial(_transform, tiers, *each) for each in sets])}
        for name in _here(peer_names):
            calls[name] = rotate([peers.transform(name, arrays, *each) for each in sets])
        ends = sorted({0, count - 1})
        parameters, positions, grad = sets[0]
        wide = [each[ends].astype(np.float64) for each in (*parameters, positions, grad)]
        places, expected = _transform(tiers, wide[:5], wide[5], wide[6], "reference")

        def verify(provider: str, result: Any) -> None:
            _near("positions", result[0][ends], places, PLACES * np.sqrt(places.size))
            for name, given, right in zip((*data.PARAMETERS, "positions"), result[1], expected, strict=True):
                given = given[ends].copy()
                if name == "positions":
                    given[:, arrays["fixed_atoms"]] = 0
                _near(f"gradient of {name}", given, right, GRADIENT * np.linalg.norm(right))

        return Workload(calls, verify, _missing(peer_names), allocation="fresh")

    limit = "copy" if count > 1 else None
    return Group(
        "3T transform, gradient",
        f"{system} fp32, B={count}",
        (OURS, *peer_names),
        build,
        count * len(arrays["positions"]),
        size,
        limit,
        least_rounds=rounds,
    )


def evaluating(count: int, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """Energies and gradient of `count` conformations, all pairs. Ours, one by one, verify all but the first."""
    arrays = data.system()[1]

    def build() -> Workload:
        positions, field = data.conformations(arrays, count), data.force_field(arrays)
        calls: dict[str, Any] = {OURS: functools.partial(_evaluate, field, positions)}
        calls |= {name: peers.energy(name, arrays, positions) for name in _here(peer_names)}
        expected = [_first_energy(), *(_evaluate(field, x[None]) for x in positions[1:])]
        totals, gradients = (np.concatenate(each) for each in zip(*expected, strict=True))

        def verify(provider: str, result: Any) -> None:
            at_energy, at_gradient = LOOSE.get(provider, (ENERGY, GRADIENT))
            _near("energy", result[0], totals, at_energy * np.linalg.norm(totals))
            found, right = (np.delete(each, arrays["fixed_atoms"], 1) for each in (result[1], gradients))
            _near("gradient", found, right, at_gradient * np.linalg.norm(right))

        return Workload(calls, verify, _missing(peer_names), allocation="fresh")

    return _of_pairs("3T energy, gradient", count, peer_names, build, rounds)


def stepping(count: int, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """A step of descent: transform, energy, gradient, Adam. Every call goes on from where the last one ended."""
    arrays = data.system()[1]

    def build() -> Workload:
        tiers, positions = data.tiers(arrays), data.conformations(arrays, 1).repeat(count, 0)
        still = list(data.moves(arrays, count, 0.0).values())
        descent = tiered.Descent(tiers, data.force_field(arrays), positions)
        calls: dict[str, Any] = {OURS: lambda: descent.run(1, RATE)[0]}
        calls |= {name: peers.step(name, arrays, still, positions, RATE) for name in _here(peer_names)}

        def verify(provider: str, result: Any) -> None:
            for number, (found, right) in enumerate(zip((result, calls[provider]()), _two_energies(), strict=True), 1):
                expected = np.full(count, right)
                _near(f"energy before step {number}", found, expected, ENERGY * np.linalg.norm(expected))

        return Workload(calls, verify, _missing(peer_names), allocation="in place")

    return _of_pairs("3T step", count, peer_names, build, rounds)


def _of_pairs(
    operation: str, count: int, peer_names: Sequence[str], build: Callable[[], Workload], rounds: int
) -> Group:
    system, arrays = data.system()
    atoms, fixed = len(arrays["positions"]), len(arrays["fixed_atoms"])
    pairs = (atoms * (atoms - 1) - fixed * (fixed - 1)) // 2
    return Group(
        operation,
        f"{system} fp32, all pairs, B={count}",
        (OURS, *peer_names),
        build,
        count * atoms,
        cases.min_bytes("energy", count, atoms, 0, 4),
        "GEMM",
        cases.flops("energy", count, pairs),
        least_rounds=rounds,
    )


def _motions(arrays: data.Arrays, count: int, seed: int) -> tuple[list[Array], Array, Array]:
    """Parameters, positions, and the gradient with respect to what they give."""
    grad = np.random.default_rng(seed).standard_normal((count, *arrays["positions"].shape), np.float32)
    return list(data.moves(arrays, count, 0.1, seed).values()), data.conformations(arrays, count, seed=seed), grad


def _transform(
    tiers: tiered.Tiers, parameters: Sequence[Array], positions: Array, grad: Array, backend: str | None = None
) -> tuple[Array, list[Array]]:
    given = tiered.Parameters(*parameters)
    moved = tiered.transform(given, tiers, positions, backend=backend)
    found, of_positions = tiered.transform_backward(grad, given, tiers, positions, backend=backend)
    return moved, [*found, of_positions]


def _evaluate(field: Any, positions: Array, backend: str | None = None) -> tuple[Array, Array]:
    terms, gradient = field.energy_and_gradient(positions, backend=backend)
    return terms["total"], gradient


@functools.cache
def _first_energy() -> tuple[Array, Array]:
    """Total (1,) and gradient (1, N, 3) of the input positions as float32 holds them, by the reference."""
    arrays = data.system()[1]
    return _evaluate(data.force_field(arrays), data.conformations(arrays, 1).astype(np.float64), "reference")


@functools.cache
def _two_energies() -> tuple[float, float]:
    """By the reference: the energies of the input positions, and after a step of Adam from no motion."""
    arrays = data.system()[1]
    tiers, positions = data.tiers(arrays), data.conformations(arrays, 1).astype(np.float64)
    still = [each.astype(np.float64) for each in data.moves(arrays, 1, 0.0).values()]
    total, grad = _first_energy()
    _, gradients = _transform(tiers, still, positions, grad, "reference")
    for parameter, gradient in zip((*still, positions), gradients, strict=True):
        first, second = np.zeros((2, *parameter.shape))
        reference.adam(parameter, gradient, first, second, RATE, 1, 0.9, 0.999, 1e-8, 1e11)
    moved = tiered.transform(tiered.Parameters(*still), tiers, positions, backend="reference")
    after, _ = _evaluate(data.force_field(arrays), moved, "reference")
    return float(total[0]), float(after[0])


def _near(what: str, found: Any, expected: Array, tolerance: float) -> None:
    error = float(np.linalg.norm(np.asarray(found, np.float64) - expected))
    if not error <= tolerance:
        raise Disagreement(f"{what} is off by {error:.3g} in norm, more than {tolerance:.3g}")


def _widths(arrays: data.Arrays) -> int:
    """How many parameters a conformation has."""
    return sum(each.size for each in data.moves(arrays, 1).values())


def _here(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in _missing(names)]


def _missing(names: Sequence[str]) -> dict[str, str]:
    absent = dict(peers.absent())
    if data.system()[0] == "polymer":
        absent.setdefault(peers.OPENMM, "its gradient of the polymer is off by 0.4 % of the norm, more than tolerated")
    return {name: reason for name, reason in absent.items() if name in names}
