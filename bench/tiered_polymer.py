"""A folded chain with all the terms of a force field, for machines without the published complex."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def polymer(
    units: int = 1107, movable: int = 870, groups: int = 322, axes: int = 150, macros: int = 15, kinds: int = 52
) -> dict[str, Array]:
    """A folded chain of `units` of one atom with two side atoms; of these, the last units - `movable` are fixed.

    The numbers are those of the published complex: 3,321 atoms, 6,639 angles, 9,954 dihedrals.
    """
    draw = np.random.default_rng(0)
    positions = _folded(units, draw)
    main = 3 * np.arange(units)
    bonds = np.concatenate([np.stack(pair, 1) for pair in ((main, main + 1), (main, main + 2), (main[:-1], main[1:]))])
    neighbours: list[list[int]] = [[] for _ in positions]
    for i, j in bonds.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    angles = np.array([(i, j, k) for j, near in enumerate(neighbours) for i in near for k in near if i < k])
    dihedrals = np.array(
        [(i, j, k, m) for j, k in bonds.tolist() for i in neighbours[j] for m in neighbours[k] if i != k and m != j]
    )
    impropers = np.stack([main[1:-1], main[:-2], main[2:], main[1:-1] + 1], 1)[: units // 2]
    first = np.array([part[0] for part in np.array_split(main[:movable], groups)])
    turning = np.sort(draw.choice(np.arange(1, groups), axes, replace=False))
    macro_of_group = np.full(groups, -1)
    macro_of_group[: groups // 3] = np.arange(groups // 3) * macros // (groups // 3)
    epsilon, sigma = draw.uniform(0.02, 0.2, kinds), draw.uniform(0.8, 1.4, kinds)
    spread = 1 + 0.01 * draw.standard_normal((kinds, kinds))
    r, theta, phi = _lengths(positions, bonds), _angles(positions, angles), _torsions(positions, impropers)
    series = np.zeros((len(dihedrals), 5))
    series[:, :4] = draw.uniform(-0.5, 0.5, (len(dihedrals), 4))
    charge = draw.normal(0, 0.3, len(positions))
    across = _lengths(positions, angles[:, ::2])
    plain = len(angles) // 64
    strained = np.minimum(np.degrees(theta) + 2, 180)
    stiffness = np.full(len(angles), 50.0)
    urey_bradley = np.stack([stiffness, np.degrees(theta), stiffness / 10, across + 0.02], 1)
    return {
        "positions": positions,
        "atom_type": draw.integers(0, kinds, len(positions)),
        "charge": charge - charge.mean(),
        "epsilon": np.sqrt(np.outer(epsilon, epsilon)) * (spread + spread.T) / 2,
        "sigma": (sigma[:, None] + sigma) * (spread + spread.T) / 2,
        "bonds": bonds,
        "angles": angles,
        "dihedrals": dihedrals,
        "impropers": impropers,
        "bond_harmonic_index": np.arange(len(bonds)),
        "bond_harmonic": np.stack([np.full(len(bonds), 300.0), r + 0.02 * draw.standard_normal(len(bonds))], 1),
        "angle_harmonic_index": np.arange(plain),
        "angle_harmonic": np.stack([np.full(plain, 50.0), strained[:plain]], 1),
        "angle_charmm_index": np.arange(plain, len(angles)),
        "angle_charmm": urey_bradley[plain:],
        "dihedral_multi_index": np.arange(len(dihedrals)),
        "dihedral_multi": series,
        "dihedral_charmm_index": np.zeros(0, np.int64),
        "dihedral_charmm": np.zeros((0, 4)),
        "improper_index": np.arange(len(impropers)),
        "improper": np.stack([np.full(len(impropers), 20.0), np.degrees(phi) + 1], 1),
        "lj_cutoff": np.array(9.0),
        "coulomb_constant": np.array(332.33),
        "group_ptr": np.append(first, 3 * movable),
        "group_atoms": np.arange(3 * movable),
        "macro_of_group": macro_of_group,
        "axis_group": turning,
        "axis_anchor": first[turning] - 3,
        "axis_bonded": first[turning],
        "fixed_atoms": np.arange(3 * movable, 3 * units),
    }


def _folded(units: int, draw: np.random.Generator) -> Array:
    """Positions (3 units, 3) of a chain that runs to and fro through a cube, at the density of a protein."""
    side = int(np.ceil(units ** (1 / 3)))
    row, x = np.divmod(np.arange(units), side)
    z, y = np.divmod(row, side)
    x, y = np.where(row % 2, side - 1 - x, x), np.where(z % 2, side - 1 - y, y)
    chain = 3.1 * np.stack([x, y, z], 1) + draw.uniform(-0.15, 0.15, (units, 3))
    arms = np.array([(0.7, 0.7, 0.7), (-0.7, 0.7, -0.7)]) + draw.uniform(-0.1, 0.1, (units, 2, 3))
    positions: Array = np.concatenate([chain[:, None], chain[:, None] + arms], 1).reshape(-1, 3)
    return positions


def _lengths(x: Array, pairs: Array) -> Array:
    lengths: Array = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)
    return lengths


def _angles(x: Array, triples: Array) -> Array:
    a, b = (x[triples[:, end]] - x[triples[:, 1]] for end in (0, 2))
    cosines = np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    angles: Array = np.arccos(np.clip(cosines, -1, 1))
    return angles


def _torsions(x: Array, quadruples: Array) -> Array:
    b1, b2, b3 = (x[quadruples[:, place + 1]] - x[quadruples[:, place]] for place in range(3))
    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
    cosines = np.sum(n1 * n2, 1) / np.linalg.norm(n1, axis=1) / np.linalg.norm(n2, axis=1)
    torsions: Array = np.arccos(np.clip(cosines, -1, 1))
    return torsions
