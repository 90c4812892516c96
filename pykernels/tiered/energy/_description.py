"""What a force field is made of, in physical terms and the caller's order of atoms, float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...kernels.tiered.problem import Bonded, Mmff

Array = np.ndarray[Any, Any]


class Nonbonded(NamedTuple):
    """Lennard-Jones and Coulomb of all pairs that are not excluded."""

    charge: Array  # (N,): elementary charges times the square root of the Coulomb constant in kcal/mol angstrom
    kind: Array  # (N,): the atom's row and column in epsilon and sigma
    epsilon: Array  # (T, T) kcal/mol
    sigma: Array  # (T, T) angstrom
    exclusions: Array  # (n, 2) pairs of atoms, in any order, repeated or not
    lj_cutoff: float = np.inf
    coulomb_cutoff: float = np.inf
    k_rf: float = 0.0
    c_rf: float = 0.0


class VinaAtoms(NamedTuple):
    """AutoDock Vina's atom types, by atom."""

    scored: Array  # (N,) bool: heavy atoms that take part
    radius: Array  # (N,) angstrom
    hydrophobic: Array  # (N,) bool
    donor: Array  # (N,) bool
    acceptor: Array  # (N,) bool
    exclusions: Array  # (n, 2) pairs of atoms
    weights: Array  # (5,): gauss1, gauss2, repulsion, hydrophobic, hydrogen bond
    cutoff: float = 8.0


def no_bonded(cos_limit: float = 1.0, signed: bool = True) -> Bonded:
    """`Bonded` without a term."""
    widths = (2, 2, 3, 4, 4, 6, 4, 3, 4, 2, 5)
    tables: list[Any] = [_empty(number, width) for number, width in enumerate(widths)]
    tables += [np.zeros(0, np.int64), np.zeros((0, 1, 1, 4, 4)), np.zeros((0, 2), np.int64), np.zeros((0, 3))]
    return Bonded(*[*tables, cos_limit, signed])


def no_mmff() -> Mmff:
    """`Mmff` without a term."""
    widths = (2, 2, 3, 7, 4, 1, 4, 6, 2, 3)
    return Mmff(*(_empty(number, width) for number, width in enumerate(widths)))


def _empty(number: int, width: int) -> Array:
    """A table of atoms, or, every second one, of coefficients."""
    return np.zeros((0, width), np.float64 if number % 2 else np.int64)


@dataclass(frozen=True)
class Description:
    """The parts of a force field of `n_atoms` atoms; what is left out has no energy."""

    n_atoms: int
    bonded: Bonded = field(default_factory=no_bonded)
    nonbonded: Nonbonded | None = None
    vina: VinaAtoms | None = None
    mmff: Mmff = field(default_factory=no_mmff)
