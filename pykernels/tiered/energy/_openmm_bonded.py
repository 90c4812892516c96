"""Terms of named atoms of an `openmm.System`: each reader gives tables by the names of the fields of `Bonded`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from ...kernels.tiered.problem import Bonded
from ._cmap import bicubic_patches
from ._description import no_bonded
from ._openmm_values import ANGSTROM, KCAL, integers, known_energy, refuse, value

Array = np.ndarray[Any, Any]
Tables = dict[str, Array]

_IMPROPERS = (
    "k*(theta-theta0)^2",
    "k*min(dtheta,2*pi-dtheta)^2;dtheta=abs(theta-theta0)",
    "k*(thetap-theta0)^2;thetap=step(-(theta-theta0+pi))*2*pi+theta+step(theta-theta0-pi)*(-2*pi)",
)
_SAME_PHASE = 1e-9


def bonded(tables: list[Tables]) -> Bonded:
    """All tables together; dihedrals in powers of the cosine are one for each four atoms."""
    joined = no_bonded(cos_limit=1.0, signed=True)
    maps = [each["cmap"] for each in tables if "cmap" in each]
    if len({each.shape[1] for each in maps}) > 1:
        raise NotImplementedError("CMAPTorsionForce: maps of several sizes; build the system with maps of one size")
    before = 0
    for each in tables:
        if "cmap" in each:
            each["cmap_map"] = each["cmap_map"] + before
            before += len(each["cmap"])
    for name in joined._fields[:-2]:
        found = [each[name] for each in tables if name in each]
        if found:
            joined = joined._replace(**{name: np.concatenate(found)})
    forward = joined.series_atoms[:, :1] < joined.series_atoms[:, 3:]
    atoms = np.where(forward, joined.series_atoms, joined.series_atoms[:, ::-1])
    atoms, series = summed(atoms, joined.series)
    return joined._replace(series_atoms=atoms, series=series)


def summed(atoms: Array, table: Array) -> tuple[Array, Array]:
    """Each row of `atoms` once, with the sum of its rows of `table`; rows of zeros left out."""
    some = (table != 0).any(1)
    unique, place = np.unique(atoms[some], axis=0, return_inverse=True)
    total = np.zeros((len(unique), table.shape[1]))
    np.add.at(total, place.ravel(), table[some])
    return unique, total


def _bonds(force: Any) -> Tables:
    atoms, (r0, k) = _rows(force, "Bond", 2)
    return {"bond_atoms": atoms, "bond": np.stack([k * KCAL / ANGSTROM**2 / 2, r0 * ANGSTROM], 1)}


def _angles(force: Any) -> Tables:
    atoms, (theta0, k) = _rows(force, "Angle", 3)
    return {"angle_atoms": atoms, "angle": np.stack([k * KCAL / 2, theta0, 0 * k, 0 * k], 1)}


def _periodic(force: Any) -> Tables:
    """Those of phase 0 or pi, and of periodicity up to 5, are polynomials in the cosine."""
    atoms, (n, phase, k) = _rows(force, "Torsion", 4, 3)
    k = k * KCAL
    even = (np.abs(np.sin(phase)) < _SAME_PHASE) & (n <= 5)
    powers = np.stack([np.pad(chebyshev.cheb2poly([0.0] * m + [1.0]), (0, 5 - m)) for m in range(6)])
    series = (np.round(np.cos(phase)) * k)[even, None] * powers[n[even].astype(np.int64)]
    series[:, 0] += k[even]
    rest = ~even & (k != 0)
    return {
        "series_atoms": atoms[even],
        "series": series,
        "periodic_atoms": atoms[rest],
        "periodic": np.stack([k, n, phase], 1)[rest],
    }


def _ryckaert_bellemans(force: Any) -> Tables:
    """In powers of the cosine of phi - pi."""
    atoms, coefficients = _rows(force, "Torsion", 4, 6)
    return {"series_atoms": atoms, "series": coefficients.T * KCAL * (-1.0) ** np.arange(6)}


def _impropers(force: Any) -> Tables:
    names = [force.getPerTorsionParameterName(n) for n in range(force.getNumPerTorsionParameters())]
    factor, _ = known_energy(force, dict.fromkeys(_IMPROPERS, ("k", "theta0")), sorted(names))
    rows = [force.getTorsionParameters(n) for n in range(force.getNumTorsions())]
    table = np.array([row[4] for row in rows], float).reshape(-1, 2)
    k, theta0 = (table[:, names.index(name)] for name in ("k", "theta0"))
    return {
        "improper_atoms": integers([row[:4] for row in rows], 4),
        "improper": np.stack([factor * k * KCAL, theta0], 1),
    }


def _maps(force: Any) -> Tables:
    atoms = integers([force.getTorsionParameters(n) for n in range(force.getNumTorsions())], 9)
    if not np.array_equal(atoms[:, 2:5], atoms[:, 5:8]):
        raise refuse(force, "has a map of dihedrals that do not share three atoms", "remove it")
    grids = []
    for number in range(force.getNumMaps()):
        size, energy = force.getMapParameters(number)
        grids.append(np.array([value(each) for each in value(energy)], float).reshape(size, size).T * KCAL)
    if len({grid.shape for grid in grids}) != 1:
        raise refuse(force, "has maps of several sizes, or none", "build the system with maps of one size")
    return {
        "cmap_atoms": atoms[:, [1, 2, 3, 4, 8]],
        "cmap_map": atoms[:, 0],
        "cmap": np.stack([bicubic_patches(grid) for grid in grids]),
    }


def _rows(force: Any, kind: str, width: int, columns: int = 2) -> tuple[Array, Array]:
    """Atoms (n, width) and parameters (columns, n) of all bonds, angles or torsions of a force."""
    get, count = getattr(force, f"get{kind}Parameters"), getattr(force, f"getNum{kind}s")()
    rows = [[value(each) for each in get(number)] for number in range(count)]
    table = np.array([row[width:] for row in rows], float).reshape(-1, columns)
    return integers([row[:width] for row in rows], width), table.T


READERS: dict[str, Callable[[Any], Tables]] = {
    "HarmonicBondForce": _bonds,
    "HarmonicAngleForce": _angles,
    "PeriodicTorsionForce": _periodic,
    "RBTorsionForce": _ryckaert_bellemans,
    "CustomTorsionForce": _impropers,
    "CMAPTorsionForce": _maps,
}
