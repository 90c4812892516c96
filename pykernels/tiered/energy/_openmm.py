"""`Description` from an `openmm.System`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._description import Description
from ._openmm_bonded import READERS, Tables, bonded
from ._openmm_nonbonded import close_pairs, exceptions, nonbonded, pair_tables
from ._openmm_values import refuse, value

Array = np.ndarray[Any, Any]

_WITHOUT_ENERGY = ("CMMotionRemover", "AndersenThermostat")


def describe(system: Any, topology: Any = None) -> Description:
    """The energy of an `openmm.System` without periodic boundaries, constraints and virtual sites.

    Takes HarmonicBondForce (and with it Urey-Bradley), HarmonicAngleForce, PeriodicTorsionForce,
    RBTorsionForce, CMAPTorsionForce, NonbondedForce, and the forces that OpenMM's readers of CHARMM, Amber
    and GROMACS make of custom ones: harmonic impropers, Lennard-Jones by tables of types (NBFIX) and between
    1-4 pairs. Forces without energy are ignored. An improper's deviation is taken the short way round.

    Parameters
    ----------
    system : `openmm.System`
    topology : `openmm.app.Topology` for names of atoms in messages

    Raises
    ------
    TypeError for what is no System; ValueError for constraints, and for a topology of other atoms;
    NotImplementedError naming the force for what has no counterpart.
    """
    if not hasattr(system, "getNumForces"):
        raise TypeError(f"system is {type(system).__name__}: expected an openmm.System")
    n_atoms = system.getNumParticles()
    names = _names(topology, n_atoms)
    if system.getNumConstraints():
        i, j = system.getConstraintParameters(0)[:2]
        raise ValueError(
            f"system has {system.getNumConstraints()} constraints, the first between {names[i]} and {names[j]}: "
            "constrained bonds have no energy; build it with constraints=None and rigidWater=False"
        )
    for atom in range(n_atoms):
        if system.isVirtualSite(atom):
            raise NotImplementedError(f"system has a virtual site, {names[atom]}: use a model without virtual sites")
    tables: list[Tables] = []
    pairs, forces, customs = [], [], []
    for force in system.getForces():
        name = type(force).__name__
        if name in _WITHOUT_ENERGY:
            continue
        if name not in (*READERS, "NonbondedForce", "CustomNonbondedForce", "CustomBondForce"):
            raise refuse(force, "has no counterpart here", "remove it, or build the system without it")
        if force.usesPeriodicBoundaryConditions():
            raise refuse(force, "is periodic", "build the system with nonbondedMethod=NoCutoff or CutoffNonPeriodic")
        if name == "CustomNonbondedForce":
            customs.append(force)
        elif name == "CustomBondForce":
            pairs.append(close_pairs(force))
        elif name == "NonbondedForce":
            forces.append(force)
            pairs.append(exceptions(force))
        else:
            tables.append(READERS[name](force))
    tables.append(pair_tables(pairs))
    return Description(n_atoms, bonded(tables), nonbonded(n_atoms, forces, customs))


def fixed_atoms_of(system: Any) -> Array:
    """Atoms (n,) of mass 0, which OpenMM does not move."""
    return np.flatnonzero([value(system.getParticleMass(atom)) == 0 for atom in range(system.getNumParticles())])


def _names(topology: Any, n_atoms: int) -> list[str]:
    if topology is None:
        return [f"atom {atom}" for atom in range(n_atoms)]
    names = [f"{a.name} of {a.residue.name} {a.residue.id} in chain {a.residue.chain.id}" for a in topology.atoms()]
    if len(names) != n_atoms:
        raise ValueError(f"topology has {len(names)} atoms: expected {n_atoms}, as system has")
    return names
