"""Crystal complexes whose ligand was displaced, and its way back: by 3T, and by minimisation in a rigid receptor."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pykernels.tiered._complex import Complex
from pykernels.tiered._energies import energy_for
from pykernels.tiered._structures import read_complex

Array = np.ndarray[Any, Any]

CRYSTALS = ("1s3v", "1uou", "1ia1", "1of6")
SHIFT, TURN = 2.0, np.radians(30)
RATE = 0.05
"""Adam's in the rigid receptor, angstrom; half as many radian. It declines to 0."""


def files(name: str) -> tuple[Path, Path]:
    """The protein and the ligand of a complex in the package posebusters."""
    spec = importlib.util.find_spec("posebusters")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("posebusters is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "pdb" / name
    return folder / f"{name}_protein_one_lig_removed.pdb", folder / f"{name}_ligand.sdf"


def crystal(name: str) -> Complex:
    return read_complex(*files(name))


def displaced(complex: Complex, seed: int) -> Complex:
    """The ligand moved to anywhere within `SHIFT`, and turned about its mean by up to `TURN`."""
    draw = np.random.default_rng(seed)
    shift, axis = (v / np.linalg.norm(v) for v in draw.standard_normal((2, 3)))
    ligand = complex.positions[complex.n_protein :]
    middle = ligand.mean(0)
    turned = middle + turn(ligand - middle, axis * draw.uniform(0, TURN)) + shift * SHIFT * draw.random() ** (1 / 3)
    return with_ligand(complex, turned)


def with_ligand(complex: Complex, ligand: Array) -> Complex:
    """The complex with its ligand elsewhere (n, 3)."""
    positions, molecule = complex.positions.copy(), type(complex.ligand)(complex.ligand)
    positions[complex.n_protein :] = ligand
    molecule.GetConformer().SetPositions(np.ascontiguousarray(ligand, np.float64))
    return dataclasses.replace(complex, positions=positions, ligand=molecule)


def rigid_receptor(starts: list[Complex], steps: int) -> tuple[Array, Array]:
    """Ligands (B, n, 3) of starts that share a protein, minimised with the built-in force field, and its totals."""
    first = starts[0]
    energy, atoms = energy_for("builtin", first, np.arange(first.n_protein))
    x = np.stack([start.positions[atoms] for start in starts]).astype(np.float32)
    ligand = atoms >= first.n_protein

    def evaluate(poses: Array) -> tuple[Array, Array]:
        x[:, ligand] = poses
        terms, gradient = energy.energy_and_gradient(x)
        return terms["total"], gradient[:, ligand].astype(np.float64)

    return minimise(evaluate, x[:, ligand].astype(np.float64), torsions(first.ligand), steps)


def minimise(
    evaluate: Callable[[Array], tuple[Array, Array]], poses: Array, axes: list[tuple[int, int, Array]], steps: int
) -> tuple[Array, Array]:
    """Adam on the translation, the rotation and the torsions of each pose (B, n, 3); the poses and their energies.

    An axis is the atom that stays, the one that turns on the bond, and all that turn.
    """
    first, second = np.zeros((2, len(poses), 6 + len(axes)))
    rates = RATE * np.array([1.0] * 3 + [0.5] * (3 + len(axes)))
    for step in range(1, steps + 1):
        _, gradient = evaluate(poses)
        forces = [gradient.sum(1), np.cross(poses - poses.mean(1, keepdims=True), gradient).sum(1)]
        for i, j, beyond in axes:
            torque = np.cross(poses[:, beyond] - poses[:, j, None], gradient[:, beyond]).sum(1)
            forces.append(np.sum(_unit(poses[:, j] - poses[:, i]) * torque, 1, keepdims=True))
        force = np.concatenate(forces, 1)
        first = 0.9 * first + 0.1 * force
        second = 0.999 * second + 0.001 * force**2
        size = rates * (1 - (step - 1) / steps)
        move = -size * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        for number, (i, j, beyond) in enumerate(axes):
            about = _unit(poses[:, j] - poses[:, i]) * move[:, 6 + number, None]
            end = poses[:, j, None]
            poses[:, beyond] = end + turn(poses[:, beyond] - end, about[:, None])
        middle = poses.mean(1, keepdims=True)
        poses = middle + turn(poses - middle, move[:, None, 3:6]) + move[:, None, :3]
    return poses, evaluate(poses)[0]


def torsions(ligand: Any) -> list[tuple[int, int, Array]]:
    """The axes of an RDKit molecule's rotatable bonds, the smaller side turning."""
    chem, lipinski = (importlib.import_module(f"rdkit.Chem{name}") for name in ("", ".Lipinski"))
    found = []
    for i, j in ligand.GetSubstructMatches(lipinski.RotatableBondSmarts):
        cut = chem.FragmentOnBonds(ligand, [ligand.GetBondBetweenAtoms(i, j).GetIdx()], addDummies=False)
        parts = chem.GetMolFrags(cut)
        beyond = min(parts, key=len)
        found.append((i, j, np.array(beyond)) if j in beyond else (j, i, np.array(beyond)))
    return found


def turn(x: Array, vector: Array) -> Array:
    """Points (..., 3) turned about the origin by rotation vectors."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    u = vector / np.maximum(angle, 1e-30)
    along = np.sum(x * u, -1, keepdims=True) * u
    turned: Array = along + (x - along) * np.cos(angle) + np.cross(u, x) * np.sin(angle)
    return turned


def _unit(v: Array) -> Array:
    unit: Array = v / np.linalg.norm(v, axis=-1, keepdims=True)
    return unit
