"""What the benchmarks of 3T measure: a published protein-ligand complex where it is at hand, else a polymer."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pykernels import tiered
from pykernels.bench.tiered_polymer import polymer
from pykernels.tiered.energy import ForceField

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

VARIABLE = "PYKERNELS_TIERED_DATA"
NEARBY = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "tiered" / "hsp90.npz"
INPUTS = (
    *("positions", "atom_type", "charge", "epsilon", "sigma", "bonds", "angles", "dihedrals", "impropers"),
    *("bond_harmonic_index", "bond_harmonic", "angle_harmonic_index", "angle_harmonic", "angle_charmm_index"),
    *("angle_charmm", "dihedral_multi_index", "dihedral_multi", "dihedral_charmm_index", "dihedral_charmm"),
    *("improper_index", "improper", "lj_cutoff", "coulomb_constant", "group_ptr", "group_atoms", "macro_of_group"),
    *("axis_group", "axis_anchor", "axis_bonded", "fixed_atoms"),
)
PARAMETERS = ("translation", "euler", "axis", "macro_translation", "macro_euler")


@functools.cache
def published() -> dict[str, Array] | None:
    """The arrays of the file that the environment names, or that lies beside the repository; None without one."""
    file = Path(os.environ.get(VARIABLE, NEARBY))
    if not file.is_file():
        return None
    with np.load(file) as found:
        return {name: found[name] for name in found.files}


@functools.cache
def system() -> tuple[str, dict[str, Array]]:
    """The name of the system that is measured here, and its arrays, the inputs only."""
    found = published()
    return ("polymer", polymer()) if found is None else ("hsp90", {name: found[name] for name in INPUTS})


def tiers(arrays: Arrays) -> tiered.Tiers:
    names = ("group_ptr", "group_atoms", "macro_of_group", "axis_group", "axis_anchor", "axis_bonded", "fixed_atoms")
    return tiered.Tiers(len(arrays["positions"]), **{name: arrays[name] for name in names})


def force_field(arrays: Arrays) -> ForceField:
    inputs: dict[str, Any] = {name: arrays[name] for name in INPUTS}
    return ForceField.from_arrays(**inputs)


def moves(arrays: Arrays, count: int, scale: float = 0.02, seed: int = 0) -> dict[str, Array]:
    """Parameters of `count` conformations, angstrom and radian, float32, normally distributed about 0."""
    draw = np.random.default_rng(seed)
    groups, macros = len(arrays["macro_of_group"]), int(arrays["macro_of_group"].max(initial=-1)) + 1
    shapes = ((groups, 3), (groups, 3), (len(arrays["axis_group"]),), (macros, 3), (macros, 3))
    return {
        name: (scale * draw.standard_normal((count, *shape))).astype(np.float32)
        for name, shape in zip(PARAMETERS, shapes, strict=True)
    }


def conformations(arrays: Arrays, count: int, scale: float = 0.02, seed: int = 1) -> Array:
    """The input positions with a little noise, (count, N, 3) float32; the first has none."""
    noise = np.random.default_rng(seed).standard_normal((count, *arrays["positions"].shape))
    noise[0] = 0
    noise[:, arrays["fixed_atoms"]] = 0
    return (arrays["positions"] + scale * noise).astype(np.float32)


def excluded(arrays: Arrays) -> Array:
    """Pairs of atoms (n, 2), the lesser first, that are bonded or share an angle, and are not ends of a dihedral."""
    count = len(arrays["positions"])
    near = np.concatenate([arrays["bonds"], arrays["angles"][:, ::2]])
    keys, ends = (np.unique(pairs.min(1) * count + pairs.max(1)) for pairs in (near, arrays["dihedrals"][:, ::3]))
    keys = np.setdiff1d(keys, ends)
    return np.stack([keys // count, keys % count], 1)
