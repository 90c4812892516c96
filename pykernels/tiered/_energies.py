"""The force field that `generate` is asked for, and the atoms that it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ._complex import Complex
from ._ligand import library
from ._trim import surroundings, trimmed

Array = np.ndarray[Any, Any]


def is_system(forcefield: Any) -> bool:
    """Whether this names a file with a serialized OpenMM System."""
    return isinstance(forcefield, str | Path) and str(forcefield).lower().endswith(".xml")


def energy_for(forcefield: Any, complex: Complex, fixed: Array) -> tuple[Any, Array]:
    """The energy, and the atoms (ascending) of the complex that it takes.

    `forcefield` is "builtin", the path of a serialized OpenMM System, a `ForceField`, or a callable.
    """
    everything = np.arange(len(complex.positions))
    if isinstance(forcefield, str) and forcefield == "builtin":
        from .energy import ForceField

        atoms = surroundings(complex, np.setdiff1d(everything, fixed))
        return ForceField.for_pocket(trimmed(complex, atoms), np.flatnonzero(np.isin(atoms, fixed))), atoms
    if is_system(forcefield):
        from .energy import ForceField

        system = _read_system(Path(forcefield))
        _check_system(system, complex, str(forcefield))
        return ForceField.from_openmm(system, _topology(complex), fixed), everything
    if hasattr(forcefield, "energy_and_gradient"):
        if forcefield.n_atoms != len(everything):
            raise ValueError(f"forcefield is of {forcefield.n_atoms} atoms: expected {len(everything)}, as the complex")
        return forcefield.with_fixed(fixed), everything
    if callable(forcefield):
        return forcefield, everything
    raise ValueError(
        f"forcefield={forcefield!r}: expected 'builtin', a file of an OpenMM System that ends in .xml, a ForceField, "
        "or a function from positions to terms and gradient"
    )


def evaluate(energy: Any, positions: Array) -> tuple[dict[str, Array], Array]:
    """Terms and their total, (B,) each, of positions (B, N, 3)."""
    terms, _ = getattr(energy, "energy_and_gradient", energy)(positions)
    return split(terms)


def split(terms: Any) -> tuple[dict[str, Array], Array]:
    """Terms without the total, and the total."""
    parts = {name: np.asarray(value, np.float64) for name, value in terms.items() if name != "total"}
    try:
        return parts, np.asarray(terms["total"], np.float64)
    except KeyError:
        return parts, np.sum(list(parts.values()), axis=0)


def _read_system(path: Path) -> Any:
    openmm = library("openmm")
    try:
        system = openmm.XmlSerializer.deserialize(path.read_text())
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is no serialized OpenMM System: {error}") from error
    if not isinstance(system, openmm.System):
        raise ValueError(f"{path} holds a {type(system).__name__}: expected a serialized OpenMM System")
    return system


def _check_system(system: Any, complex: Complex, name: str) -> None:
    """Refuse a System of other particles than the complex's atoms, saying which are missing where."""
    table = library("rdkit.Chem").GetPeriodicTable()
    unit = library("openmm").unit.dalton
    found = np.array([system.getParticleMass(i).value_in_unit(unit) for i in range(system.getNumParticles())])
    expected = np.array([table.GetAtomicWeight(element) for element in complex.element])
    there, here = len(found), len(expected)
    if there == here:
        wrong = np.flatnonzero((np.abs(found - expected) > 0.5) & (found > 0) & ~_hydrogen(found, complex))
        if len(wrong):
            raise ValueError(
                f"particle {wrong[0]} of {name} has mass {found[wrong[0]]:.3f}, atom {wrong[0]} of the files is "
                f"{complex.label(wrong[0])}: expected the same atoms in the same order, the ligand's last"
            )
        return
    common = min(there, here)
    off = np.flatnonzero(np.abs(found[:common] - expected[:common]) > 0.5)
    first = int(off[0]) if len(off) else common
    counts = f"{name} has {there} particles, the files have {here} atoms (water included)"
    if there > here:
        hydrogens = max(int(np.sum((found > 0.5) & (found < 3))) - complex.element.count("H"), 0)
        after = f"after {complex.label(first - 1)}" if first else "at the beginning"
        raise ValueError(
            f"{counts}: {hydrogens} hydrogens and {there - here - hydrogens} other atoms are missing in the files, "
            f"the first {after}; write the protein from the topology that the System was made of"
        )
    extra = complex.label(first) if first < here else "none"
    raise ValueError(f"{counts}: {here - there} atoms of the files are not in the System, the first is {extra}")


def _hydrogen(masses: Array, complex: Complex) -> Array:
    """Hydrogens whose mass was repartitioned, and the atoms that gave it."""
    light = np.array([element == "H" for element in complex.element]) & (masses < 5)
    partners = np.zeros(len(masses), bool)
    pairs = np.concatenate([complex.bonds, complex.bonds[:, ::-1]])
    partners[pairs[light[pairs[:, 0]], 1]] = True
    return light | partners


def _topology(complex: Complex) -> Any:
    """Names for messages, as openmm.app has them."""
    app = library("openmm.app")
    topology, elements = app.Topology(), app.element.Element
    chain = residue = None
    for atom, number in enumerate(complex.residue):
        if atom == 0 or complex.chain[atom] != complex.chain[atom - 1]:
            chain = topology.addChain(complex.chain[atom])
        if atom == 0 or number != complex.residue[atom - 1]:
            residue = topology.addResidue(complex.residue_name[atom], chain, complex.residue_number[atom])
        topology.addAtom(complex.atom_name[atom], elements.getBySymbol(complex.element[atom]), residue)
    return topology
