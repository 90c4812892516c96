"""Lennard-Jones and Coulomb of an `openmm.System`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._description import Nonbonded
from ._openmm_bonded import Tables, summed
from ._openmm_values import ANGSTROM, COULOMB_CONSTANT, KCAL, integers, known_energy, refuse, value

Array = np.ndarray[Any, Any]
Rows = tuple[Array, Array]

_TABLES = {
    "acoef(type1,type2)/r^12-bcoef(type1,type2)/r^6": 1,
    "(a/r6)^2-b/r6;r6=r^6;a=acoef(type1,type2);b=bcoef(type1,type2)": 2,
}
"""Energies of CustomNonbondedForce with coefficients in tables, and the power that the first of them stands in."""
_PRODUCT = "A1*A2/r^12-C1*C2/r^6"
_CLOSE = {"epsilon*((sigma/r)^12-(sigma/r)^6)": ("epsilon", "sigma"), "-C/r^6+A/r^12": ("A", "C")}
"""Energies of CustomBondForce between the ends of dihedrals, up to a factor, and their parameters."""


class _LennardJones(NamedTuple):
    kind: Array
    epsilon: Array
    sigma: Array
    cutoff: float


def nonbonded(n_atoms: int, forces: list[Any], customs: list[Any]) -> Nonbonded | None:
    """Of at most one NonbondedForce and one CustomNonbondedForce, which must exclude the same pairs."""
    for found in (forces, customs):
        if len(found) > 1:
            raise refuse(found[1], "a second force of its class", "build the system with one")
    if not forces and not customs:
        return None
    charge, excluded = np.zeros(n_atoms), np.zeros((0, 2), np.int64)
    coulomb_cutoff, dielectric = np.inf, 1.0
    lj = None
    for force in forces:
        _check_nonbonded(force)
        rows = [[value(each) for each in force.getParticleParameters(atom)] for atom in range(n_atoms)]
        charge, sigma, epsilon = np.array(rows, float).reshape(-1, 3).T
        excluded = integers([force.getExceptionParameters(n)[:2] for n in range(force.getNumExceptions())], 2)
        coulomb_cutoff, dielectric = _cutoff(force), float(force.getReactionFieldDielectric())
        lj = _combined(sigma, epsilon, coulomb_cutoff)
    for force in customs:
        if lj is not None and lj.epsilon.any():
            raise refuse(force, "Lennard-Jones beside that of a NonbondedForce", "build the system with one of them")
        lj = _custom(force, n_atoms)
        pairs = integers([force.getExclusionParticles(n) for n in range(force.getNumExclusions())], 2)
        if forces and _pair_set(pairs) != _pair_set(excluded):
            raise refuse(force, "excludes other pairs than the NonbondedForce", "give both the same exclusions")
        excluded = pairs
    if lj is None:
        return None
    k_rf = c_rf = 0.0
    if coulomb_cutoff < np.inf:
        k_rf = (dielectric - 1) / (2 * dielectric + 1) / coulomb_cutoff**3
        c_rf = 3 * dielectric / (2 * dielectric + 1) / coulomb_cutoff
    charge = charge * np.sqrt(COULOMB_CONSTANT)
    return Nonbonded(charge, lj.kind, lj.epsilon, lj.sigma, excluded, lj.cutoff, coulomb_cutoff, k_rf, c_rf)


def exceptions(force: Any) -> Rows:
    """The pairs of a NonbondedForce that have parameters of their own."""
    rows = [force.getExceptionParameters(n) for n in range(force.getNumExceptions())]
    charge, sigma, epsilon = np.array([[value(each) for each in row[2:]] for row in rows], float).reshape(-1, 3).T
    table = _in_angstrom(4 * epsilon * sigma**12, 4 * epsilon * sigma**6)
    table[:, 2] = COULOMB_CONSTANT * charge
    return integers([row[:2] for row in rows], 2), table


def close_pairs(force: Any) -> Rows:
    """A CustomBondForce of Lennard-Jones between the ends of dihedrals."""
    names = [force.getPerBondParameterName(n) for n in range(force.getNumPerBondParameters())]
    factor, energy = known_energy(force, _CLOSE, sorted(names))
    rows = [force.getBondParameters(n) for n in range(force.getNumBonds())]
    values = np.array([row[2] for row in rows], float).reshape(-1, 2)
    first, second = (values[:, names.index(name)] for name in _CLOSE[energy])
    if "sigma" in names:
        first, second = first * second**12, first * second**6
    return integers([row[:2] for row in rows], 2), factor * _in_angstrom(first, second)


def pair_tables(pairs: list[Rows]) -> Tables:
    """Each pair once, as fields of `Bonded`."""
    atoms = np.concatenate([np.zeros((0, 2), np.int64), *(each for each, _ in pairs)])
    table = np.concatenate([np.zeros((0, 3)), *(each for _, each in pairs)])
    atoms, table = summed(np.sort(atoms, 1), table)
    return {"pair_atoms": atoms, "pair": table}


def _in_angstrom(twelfth: Array, sixth: Array) -> Array:
    table = np.zeros((len(twelfth), 3))
    table[:, 0], table[:, 1] = twelfth * KCAL * ANGSTROM**12, sixth * KCAL * ANGSTROM**6
    return table


def _cutoff(force: Any) -> float:
    method = force.getNonbondedMethod()
    if method == force.NoCutoff:
        return np.inf
    if method != force.CutoffNonPeriodic:
        raise refuse(force, "is periodic", "build the system with nonbondedMethod=NoCutoff or CutoffNonPeriodic")
    if force.getUseSwitchingFunction():
        raise refuse(force, "has a switching function", "build the system with switchDistance=None")
    return float(value(force.getCutoffDistance())) * ANGSTROM


def _check_nonbonded(force: Any) -> None:
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise refuse(force, "has parameter offsets", "build the system without alchemical parameters")


def _pair_set(pairs: Array) -> set[tuple[int, int]]:
    return {(min(i, j), max(i, j)) for i, j in pairs.tolist()}


def _combined(sigma: Array, epsilon: Array, cutoff: float) -> _LennardJones:
    """By the rule of Lorentz and Berthelot."""
    types = np.stack([np.where(epsilon == 0, 1 / ANGSTROM, sigma), epsilon], 1)
    types, kind = np.unique(types, axis=0, return_inverse=True)
    sigma, epsilon = types.T
    mean = np.add.outer(sigma, sigma) / 2
    return _LennardJones(kind.ravel(), np.sqrt(np.outer(epsilon, epsilon)) * KCAL, mean * ANGSTROM, cutoff)


def _custom(force: Any, n_atoms: int) -> _LennardJones:
    names = [force.getPerParticleParameterName(n) for n in range(force.getNumPerParticleParameters())]
    factor, energy = known_energy(force, {**dict.fromkeys(_TABLES, ("type",)), _PRODUCT: ("A", "C")}, sorted(names))
    if force.getNumInteractionGroups() or force.getNumGlobalParameters() or force.getNumComputedValues():
        raise refuse(force, "has interaction groups, global parameters or computed values", "remove them")
    cutoff = _cutoff(force)
    values = np.array([force.getParticleParameters(atom) for atom in range(n_atoms)], float).reshape(n_atoms, -1)
    if energy == _PRODUCT:
        types, kind = np.unique(values, axis=0, return_inverse=True)
        a, c = (types[:, names.index(name)] for name in ("A", "C"))
        first, second = np.outer(a, a), np.outer(c, c)
    else:
        kind = values[:, 0].astype(np.int64)
        tables = {force.getTabulatedFunctionName(n): n for n in range(force.getNumTabulatedFunctions())}
        first, second = (_table(force.getTabulatedFunction(tables[name])) for name in ("acoef", "bcoef"))
        first = first ** _TABLES[energy]
    first, second = factor * first, factor * second
    some = (first > 0) & (second > 0)
    if not (some | ((first == 0) & (second == 0))).all():
        raise refuse(force, "has repulsion without dispersion, or the other way round", "remove it")
    first, second = np.where(some, first, 1), np.where(some, second, 1)
    epsilon, sigma = np.where(some, second**2 / (4 * first), 0), np.where(some, (first / second) ** (1 / 6), 1)
    return _LennardJones(kind.ravel(), epsilon * KCAL, sigma * ANGSTROM, cutoff)


def _table(function: Any) -> Array:
    columns, rows, values = function.getFunctionParameters()
    table: Array = np.array(values, float).reshape(rows, columns).T
    return table
