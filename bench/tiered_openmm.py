"""The energy of 3T by OpenMM's CPU platform, one conformation after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np
import openmm

from pykernels.bench.tiered_data import excluded

Array = np.ndarray[Any, Any]

KCAL, ANGSTROM = 4.184, 0.1
COULOMB = 138.93545764438198
"""OpenMM's constant, kJ/mol nm."""

FAR = 1e6
"""A cutoff in nm that leaves nothing out: the vectorised loop is only for forces with one."""


def energy_and_gradient(arrays: Mapping[str, Array], positions: Array) -> Callable[[], tuple[Array, Array]]:
    """Totals (B,) and gradients (B, N, 3) of `positions` (B, N, 3), in kcal/mol and angstrom."""
    context = _context(arrays)
    totals, gradients = np.empty(len(positions)), np.empty(positions.shape)
    in_nm = (positions * ANGSTROM).astype(np.float64)

    def run() -> tuple[Array, Array]:
        for b, conformation in enumerate(in_nm):
            context.setPositions(conformation)
            state = context.getState(energy=True, forces=True)
            totals[b] = state.getPotentialEnergy()._value / KCAL
            np.multiply(state.getForces(asNumpy=True)._value, -ANGSTROM / KCAL, out=gradients[b])
        return totals, gradients

    return run


def _context(arrays: Mapping[str, Array]) -> Any:
    system = openmm.System()
    for _ in arrays["positions"]:
        system.addParticle(1.0)
    for force in (*_bonded(arrays), *_pairs(arrays)):
        system.addForce(force)
    platform = openmm.Platform.getPlatformByName("CPU")
    threads = {"Threads": str(numba.get_num_threads())}
    return openmm.Context(system, openmm.VerletIntegrator(0.001), platform, threads)


def _pairs(arrays: Mapping[str, Array]) -> list[Any]:
    kinds = len(arrays["epsilon"])
    lj = openmm.CustomNonbondedForce("repulsion(kind1, kind2) * s6 * s6 - dispersion(kind1, kind2) * s6; s6 = 1 / r^6")
    for name, power in (("repulsion", 12), ("dispersion", 6)):
        table = 4 * KCAL * arrays["epsilon"] * (ANGSTROM * arrays["sigma"]) ** power
        lj.addTabulatedFunction(name, openmm.Discrete2DFunction(kinds, kinds, table.T.ravel().tolist()))
    lj.addPerParticleParameter("kind")
    lj.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    lj.setCutoffDistance(float(arrays["lj_cutoff"]) * ANGSTROM)
    coulomb = openmm.NonbondedForce()
    coulomb.setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
    coulomb.setCutoffDistance(FAR)
    coulomb.setReactionFieldDielectric(1.0)
    scale = np.sqrt(arrays["coulomb_constant"] * KCAL * ANGSTROM / COULOMB)
    for kind, charge in zip(arrays["atom_type"].tolist(), (scale * arrays["charge"]).tolist(), strict=True):
        lj.addParticle([kind])
        coulomb.addParticle(charge, 1.0, 0.0)
    for i, j in excluded(arrays).tolist():
        lj.addExclusion(i, j)
        coulomb.addException(i, j, 0.0, 1.0, 0.0)
    return [lj, coulomb]


def _bonded(arrays: Mapping[str, Array]) -> list[Any]:
    bonds, angles, series = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.RBTorsionForce()
    periodic, impropers = openmm.PeriodicTorsionForce(), openmm.CustomTorsionForce("k * (abs(theta) - ref)^2")
    for parameter in ("k", "ref"):
        impropers.addPerTorsionParameter(parameter)
    stiff = 2 * KCAL / ANGSTROM**2

    for atoms, (k, r0) in _rows(arrays, "bonds", "bond_harmonic"):
        bonds.addBond(*atoms, r0 * ANGSTROM, stiff * k)
    for name in ("angle_harmonic", "angle_charmm"):
        for atoms, (k, theta0, *across) in _rows(arrays, "angles", name):
            angles.addAngle(*atoms, np.radians(theta0), 2 * KCAL * k)
            if across:
                bonds.addBond(atoms[0], atoms[2], across[1] * ANGSTROM, stiff * across[0])
    for atoms, a in _rows(arrays, "dihedrals", "dihedral_multi"):
        series.addTorsion(*atoms, *(KCAL * (-1) ** n * value for n, value in enumerate([*a, 0.0][:6])))
    for atoms, (k, n, d, w) in _rows(arrays, "dihedrals", "dihedral_charmm"):
        if k * w:
            periodic.addTorsion(*atoms, int(n), np.radians(d), KCAL * k * w)
    for atoms, (k, ref) in _rows(arrays, "impropers", "improper"):
        impropers.addTorsion(*atoms, [KCAL * k, np.radians(ref)])
    return [bonds, angles, series, periodic, impropers]


def _rows(arrays: Mapping[str, Array], of: str, name: str) -> Any:
    return zip(arrays[of][arrays[f"{name}_index"]].tolist(), arrays[name].tolist(), strict=True)
