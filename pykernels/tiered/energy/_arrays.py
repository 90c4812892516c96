"""`Description` from the flat arrays that the golden data and the 3T authors' converted inputs come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import _options
from ._description import Description, Nonbonded, no_bonded

Array = np.ndarray[Any, Any]

COULOMB_CONSTANT = 332.33
COS_LIMIT = 0.999999
_ATOMS = {"bonds": 2, "angles": 3, "dihedrals": 4, "impropers": 4}
_COEFFICIENTS = {
    "bond_harmonic": ("bonds", 2),
    "angle_harmonic": ("angles", 2),
    "angle_charmm": ("angles", 4),
    "dihedral_multi": ("dihedrals", 5),
    "dihedral_charmm": ("dihedrals", 4),
    "improper": ("impropers", 2),
}
_NONBONDED = ("atom_type", "charge", "epsilon", "sigma", "coulomb_constant", "lj_cutoff")
_OF_OTHERS = (
    "positions",
    "group_",
    "macro_of_group",
    "axis_",
    "ligand_atoms",
    "initial_",
    "term_names",
    "p_",
    "g_",
    "out_",
)
COMBINATIONS = ("lorentz-berthelot", "geometric")


def describe(arrays: dict[str, Any], combination: str, lj_14: float, coulomb_14: float) -> Description:
    """The force field of `ForceField.from_arrays`."""
    _check_names(arrays)
    n_atoms = _count(arrays)
    atoms = {name: _atoms(name, arrays.get(name), width, n_atoms) for name, width in _ATOMS.items()}
    table = {name: _coefficients(name, arrays, atoms[of], width) for name, (of, width) in _COEFFICIENTS.items()}
    bonds, angles, dihedrals = atoms["bonds"], atoms["angles"], atoms["dihedrals"]
    bonded = no_bonded(COS_LIMIT, signed=False)
    where, harmonic = table["angle_harmonic"]
    there, charmm = table["angle_charmm"]
    angle = np.concatenate([np.pad(harmonic, ((0, 0), (0, 2))), charmm])
    angle[:, 1] = np.radians(angle[:, 1])
    series = np.pad(table["dihedral_multi"][1], ((0, 0), (0, 1)))
    k, n, d, weight = table["dihedral_charmm"][1].T
    improper = table["improper"][1] * (1, np.pi / 180)
    bonded = bonded._replace(
        bond_atoms=bonds[table["bond_harmonic"][0]],
        bond=table["bond_harmonic"][1],
        angle_atoms=angles[np.concatenate([where, there])],
        angle=angle,
        series_atoms=dihedrals[table["dihedral_multi"][0]],
        series=series,
        periodic_atoms=dihedrals[table["dihedral_charmm"][0]],
        periodic=np.stack([k * weight, n, np.radians(d)], 1),
        improper_atoms=atoms["impropers"][table["improper"][0]],
        improper=improper,
    )
    if "charge" not in arrays:
        return Description(n_atoms, bonded)
    nonbonded = _nonbonded(arrays, combination, n_atoms)
    close, ends = np.concatenate([bonds, angles[:, ::2]]), np.unique(np.sort(dihedrals[:, ::3], 1), axis=0)
    ends = ends[ends[:, 0] != ends[:, 1]]
    close = close[~np.isin(_keys(close, n_atoms), _keys(ends, n_atoms))]
    if (lj_14, coulomb_14) != (1, 1):
        i, j = ends.T
        kinds = nonbonded.kind[i], nonbonded.kind[j]
        sixth = nonbonded.sigma[kinds] ** 6
        dispersion = 4 * lj_14 * nonbonded.epsilon[kinds] * sixth
        charges = coulomb_14 * nonbonded.charge[i] * nonbonded.charge[j]
        bonded = bonded._replace(pair_atoms=ends, pair=np.stack([dispersion * sixth, dispersion, charges], 1))
        close = np.concatenate([close, ends])
    return Description(n_atoms, bonded, nonbonded._replace(exclusions=close))


def _nonbonded(arrays: dict[str, Any], combination: str, n_atoms: int) -> Nonbonded:
    charge, kind = _numbers("charge", arrays, (n_atoms,)), _integers("atom_type", arrays["atom_type"])
    epsilon, sigma = (_numbers(name, arrays) for name in ("epsilon", "sigma"))
    if epsilon.ndim == 1 and sigma.shape == epsilon.shape:
        mean = np.sqrt(np.outer(sigma, sigma)) if combination == "geometric" else np.add.outer(sigma, sigma) / 2
        epsilon, sigma = np.sqrt(np.outer(epsilon, epsilon)), mean
    types = len(epsilon)
    if epsilon.shape != (types, types) or sigma.shape != (types, types):
        raise ValueError(f"epsilon has shape {epsilon.shape} and sigma {sigma.shape}: expected (T, T) or (T,) of both")
    if not (np.array_equal(epsilon, epsilon.T) and np.array_equal(sigma, sigma.T)):
        raise ValueError("epsilon or sigma is not symmetric: expected the same for types (s, t) and (t, s)")
    if kind.shape != (n_atoms,) or (n_atoms and not 0 <= kind.min() <= kind.max() < types):
        raise ValueError(f"atom_type has shape {kind.shape}: expected ({n_atoms},) types from 0 to {types - 1}")
    constant = float(arrays.get("coulomb_constant", COULOMB_CONSTANT))
    cutoff = float(arrays.get("lj_cutoff", np.inf))
    if not constant >= 0 or not cutoff > 0:
        raise ValueError(
            f"coulomb_constant={constant}, lj_cutoff={cutoff}: expected a positive cutoff, a constant >= 0"
        )
    return Nonbonded(charge * np.sqrt(constant), kind, epsilon, sigma, np.zeros((0, 2), np.int64), cutoff)


def _check_names(arrays: dict[str, Any]) -> None:
    index = tuple(f"{name}_index" for name in _COEFFICIENTS)
    known = (*_ATOMS, *_COEFFICIENTS, *index, *_NONBONDED)
    for name in arrays:
        if name not in known and not name.startswith(_OF_OTHERS):
            raise TypeError(f"{name}: not an array of a force field; expected some of {', '.join(known)}")
    for needed in (("charge", "atom_type"), ("charge", "epsilon"), ("charge", "sigma"), ("atom_type", "charge")):
        if needed[0] in arrays and needed[1] not in arrays:
            raise TypeError(f"{needed[1]} is missing: expected it beside {needed[0]}")


def _count(arrays: dict[str, Any]) -> int:
    for name in ("charge", "atom_type", "positions"):
        if name in arrays:
            return len(arrays[name])
    tables = [np.asarray(arrays[name]) for name in _ATOMS if name in arrays]
    return max((int(table.max()) + 1 for table in tables if table.size), default=0)


def _integers(name: str, value: Any) -> Array:
    table = np.asarray(value)
    if table.size and table.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {table.dtype}: expected integers")
    return np.ascontiguousarray(table, np.int64)


def _atoms(name: str, value: Any, width: int, n_atoms: int) -> Array:
    table = _integers(name, np.zeros((0, width), np.int64) if value is None else value)
    if table.ndim != 2 or table.shape[1] != width:
        raise ValueError(f"{name} has shape {table.shape}: expected (n, {width})")
    wrong = np.flatnonzero(((table < 0) | (table >= n_atoms)).any(1))
    if len(wrong):
        raise ValueError(f"{name}[{wrong[0]}] is {table[wrong[0]].tolist()}: expected atoms from 0 to {n_atoms - 1}")
    return table


def _coefficients(name: str, arrays: dict[str, Any], atoms: Array, width: int) -> tuple[Array, Array]:
    """Rows of the list of atoms, and the coefficients of each; without an index, those of all rows."""
    if name not in arrays:
        return np.zeros(0, np.int64), np.zeros((0, width))
    table = _numbers(name, arrays)
    if table.ndim != 2 or table.shape[1] != width:
        raise ValueError(f"{name} has shape {table.shape}: expected (n, {width})")
    index = _integers(f"{name}_index", arrays.get(f"{name}_index", np.arange(len(atoms))))
    if index.shape != (len(table),):
        raise ValueError(f"{name}_index has shape {index.shape}: expected ({len(table)},), one for each row of {name}")
    if len(index) and not 0 <= index.min() <= index.max() < len(atoms):
        raise ValueError(f"{name}_index has values from {index.min()} to {index.max()}: expected 0 to {len(atoms) - 1}")
    return index, table


def _numbers(name: str, arrays: dict[str, Any], shape: Sequence[int] | None = None) -> Array:
    values = np.asarray(arrays[name])
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{name} has dtype {values.dtype}: expected numbers")
    if shape is not None and values.shape != shape:
        raise ValueError(f"{name} has shape {values.shape}: expected {tuple(shape)}")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        raise ValueError(f"{name}{wrong[0].tolist()} is {values[tuple(wrong[0])]}: expected finite numbers")
    return np.ascontiguousarray(values, np.float64)


def _keys(pairs: Array, n_atoms: int) -> Array:
    ordered = np.sort(pairs, 1)
    keys: Array = ordered[:, 0] * n_atoms + ordered[:, 1]
    return keys


def check_options(combination: Any, lj_14: Any, coulomb_14: Any) -> None:
    _options.choice("combination", combination, COMBINATIONS)
    for name, value in (("lj_14", lj_14), ("coulomb_14", coulomb_14)):
        if not isinstance(value, int | float) or not 0 <= value < np.inf:
            raise ValueError(f"{name}={value!r}: expected a finite factor >= 0")
