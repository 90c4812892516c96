"""Random systems that have an energy, for tests and benchmarks; positions come from `cases`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .problem import Bonded, Mmff, Pairs, System, Vina

Array = np.ndarray[Any, Any]

CLASSES = {"bond": (2, 2), "angle": (3, 4), "series": (4, 6), "periodic": (4, 3), "improper": (4, 2), "pair": (2, 3)}
"""Atoms and coefficients of a term of each class."""

HSP90 = {"bond": 3351, "angle": 6060, "series": 10379, "periodic": 193, "improper": 582}
"""Terms of the paper's protein with 3322 atoms, 2609 of them movable."""


class Nonbonded(NamedTuple):
    """How pairs are cut off, and how many kinds of atoms there are."""

    lj_cutoff: float = 9.0
    coulomb_cutoff: float = np.inf
    k_rf: float = 0.0
    c_rf: float = 0.0
    kinds: int = 52


PUBLISHED = Nonbonded()


def system(
    n_atoms: int,
    movable: int,
    terms: dict[str, int],
    dtype: Any = np.float64,
    nonbonded: Nonbonded = PUBLISHED,
    *,
    cos_limit: float = 0.999999,
    signed: bool = False,
    seed: int = 0,
) -> System:
    """So many `terms` of each of `CLASSES` between any atoms, and pairs of all atoms, about ten exclusions each."""
    rng = np.random.default_rng(seed)
    bonded: dict[str, Any] = {"cos_limit": cos_limit, "signed": signed}
    for name, (width, coefficients) in CLASSES.items():
        count = terms.get(name, 0)
        steps = rng.integers(1, max(2, n_atoms // 4), (count, width))
        bonded[f"{name}_atoms"] = np.cumsum(steps, 1) % max(1, n_atoms)
        bonded[name] = np.abs(rng.standard_normal((count, coefficients))).astype(dtype)
    bonded["periodic"][:, 1] = rng.integers(1, 7, len(bonded["periodic"]))
    none, empty = np.zeros(0, np.int64), np.zeros(0, dtype)
    bonded |= {"cmap_atoms": np.zeros((0, 5), np.int64), "cmap_map": none, "cmap": np.zeros((0, 1, 1, 4, 4), dtype)}
    widths = (2, 2, 3, 7, 4, 1, 4, 6, 2, 3)
    strain = Mmff(*(np.zeros((0, width), dtype if number % 2 else np.int64) for number, width in enumerate(widths)))
    score = Vina(none, 0, empty, empty, empty, empty, np.zeros(1, np.int64), none, np.zeros(5, dtype), 8.0)
    return System(Bonded(**bonded), _pairs(n_atoms, movable, nonbonded, dtype, rng), score, strain)


def _pairs(n_atoms: int, movable: int, nonbonded: Nonbonded, dtype: Any, rng: np.random.Generator) -> Pairs:
    order = rng.permutation(n_atoms)
    of_atom = rng.integers(0, nonbonded.kinds, n_atoms)
    atoms = np.concatenate([some[np.argsort(of_atom[some])] for some in (order[:movable], order[movable:])])
    kind = of_atom[atoms]
    epsilon, sixth = rng.uniform(0.02, 0.2, (2, nonbonded.kinds, nonbonded.kinds))
    epsilon, sixth = epsilon + epsilon.T, 3000 * (sixth + sixth.T)
    dispersion = (4 * epsilon * sixth)[:, kind]
    i, j = rng.integers(0, max(1, n_atoms), (2, 5 * n_atoms))
    both = np.concatenate([np.stack([i, j], 1), np.stack([j, i], 1)])
    excluded = np.unique(both[both[:, 0] != both[:, 1]], axis=0)
    return Pairs(
        atoms,
        movable,
        (6 * rng.standard_normal(n_atoms)).astype(dtype),
        kind,
        (dispersion * sixth[:, kind]).astype(dtype),
        dispersion.astype(dtype),
        np.searchsorted(excluded[:, 0], np.arange(n_atoms + 1)),
        np.ascontiguousarray(excluded[:, 1]),
        *nonbonded[:4],
        False,
    )
