"""Harmonic restraints of a protein to the geometry that it was read with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...kernels.tiered.problem import Bonded
from ._description import no_bonded

Array = np.ndarray[Any, Any]

COS_LIMIT = 0.999999
_SHORTEST_BOND = 0.1
_CONJUGATED = 1.42
"""Bonds of carbon and nitrogen that are shorter than this, in angstrom, do not turn."""
_LARGEST_RING = 6
_LEAST_SINE = 0.17
"""Of the angles in a restrained dihedral: sin 10 degrees; straighter, it is not defined well."""


def restraints(
    x: Array,
    bonds: Array,
    element: Array,
    bond_stiffness: float,
    angle_stiffness: float,
    plane_stiffness: float,
    label: Callable[[int], str] = str,
    bendable: Array | None = None,
) -> Bonded:
    """Terms with their minimum at `x` (N, 3), for the molecules that `bonds` (n, 2) make.

    Bond lengths and angles; signed dihedrals (atom, three neighbours), which keep chirality and
    planarity; and dihedrals about bonds that do not turn: those in rings of up to six atoms, and between
    carbon and nitrogen of less than 1.42 angstrom, such as peptide bonds. Atoms that are not `bendable` (N,)
    bool are the vertex of no angle. `label` names an atom in messages.
    """
    two, three, four = paths(bonds, len(x))
    if bendable is not None:
        three = three[bendable[three[:, 1]]]
    four = four[_rigid(x, four[:, 1:3], bonds, element)]
    impropers = np.concatenate([_branches(two, element), four])
    impropers = impropers[_bent(x, impropers)]
    r0 = np.linalg.norm(x[two[:, 0]] - x[two[:, 1]], axis=1)
    for i, j in two[~(r0 > _SHORTEST_BOND)][:1]:
        raise ValueError(f"{label(i)} and {label(j)} are bonded and in the same place: correct their coordinates")
    theta0, phi0, zeros = _angles(x, three), _dihedrals(x, impropers), np.zeros(len(three))
    return no_bonded(COS_LIMIT)._replace(
        bond_atoms=two,
        bond=np.stack([np.full(len(two), bond_stiffness), r0], 1),
        angle_atoms=three,
        angle=np.stack([np.full(len(three), angle_stiffness), theta0, zeros, zeros], 1),
        improper_atoms=impropers,
        improper=np.stack([np.full(len(impropers), plane_stiffness), phi0], 1),
    )


def paths(bonds: Array, count: int) -> tuple[Array, Array, Array]:
    """The paths of two, three and four different atoms along bonds, (n, 2), (n, 3), (n, 4), each in one direction."""
    both = np.unique(np.concatenate([bonds, bonds[:, ::-1]]), axis=0).reshape(-1, 2)
    start = np.searchsorted(both[:, 0], np.arange(count + 1))
    found = [both]
    for _ in range(2):
        last = found[-1]
        degree = start[last[:, -1] + 1] - start[last[:, -1]]
        before = np.cumsum(degree) - degree
        step = np.arange(degree.sum()) - np.repeat(before - start[last[:, -1]], degree)
        longer = np.concatenate([np.repeat(last, degree, axis=0), both[step, 1:]], axis=1)
        found.append(longer[(longer[:, :-1] != longer[:, -1:]).all(1)])
    two, three, four = (each[each[:, 0] < each[:, -1]] for each in found)
    return two, three, four


def _branches(two: Array, element: Array) -> Array:
    """Atoms with three neighbours or more, and three of these: heavy ones first."""
    neighbours: dict[int, list[int]] = {}
    for i, j in two.tolist():
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    light = (element == "H").tolist()
    rows = [
        (atom, *sorted(others, key=lambda other: (light[other], other))[:3])
        for atom, others in sorted(neighbours.items())
        if len(others) > 2
    ]
    return np.array(rows, np.int64).reshape(-1, 4)


def _rigid(x: Array, pairs: Array, bonds: Array, element: Array) -> Array:
    """Which of the bonded pairs do not turn about their bond."""
    organic = np.isin(element, ("C", "N"))
    short = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1) < _CONJUGATED
    neighbours: list[list[int]] = [[] for _ in range(len(x))]
    for i, j in bonds.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    unique, which = np.unique(np.sort(pairs, 1), axis=0, return_inverse=True)
    ring = np.array([_in_ring(i, j, neighbours) for i, j in unique.tolist()], bool)
    return np.asarray((short & organic[pairs].all(1)) | ring[which.reshape(-1)])


def _in_ring(i: int, j: int, neighbours: list[list[int]]) -> bool:
    """Whether the bond of i and j is in a ring of up to `_LARGEST_RING` atoms."""
    seen, front = {i}, [other for other in neighbours[i] if other != j]
    for _ in range(_LARGEST_RING - 2):
        seen.update(front)
        front = [other for atom in front for other in neighbours[atom] if other not in seen]
        if j in front:
            return True
    return False


def _bent(x: Array, atoms: Array) -> Array:
    ends = np.sin(_angles(x, atoms[:, :3])), np.sin(_angles(x, atoms[:, 1:]))
    return np.asarray(np.minimum(*ends) > _LEAST_SINE)


def _angles(x: Array, atoms: Array) -> Array:
    a, b = x[atoms[:, 0]] - x[atoms[:, 1]], x[atoms[:, 2]] - x[atoms[:, 1]]
    return np.asarray(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), np.sum(a * b, 1)))


def _dihedrals(x: Array, atoms: Array) -> Array:
    a, b, c = (x[atoms[:, p + 1]] - x[atoms[:, p]] for p in range(3))
    n1, n2 = np.cross(a, b), np.cross(b, c)
    return np.asarray(np.arctan2(np.linalg.norm(b, axis=1) * np.sum(a * n2, 1), np.sum(n1 * n2, 1)))
