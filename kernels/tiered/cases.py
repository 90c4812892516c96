"""Inputs and work counts that tests, checks and benchmarks share."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import Motion

Array = np.ndarray[Any, Any]

LARGEST = 18
"""Atoms of the largest groups; as in the paper's proteins, the mean is near 8."""

TREES: dict[str, tuple[int, dict[str, Any]]] = {
    "no atoms": (0, {}),
    "one atom": (1, {}),
    "all fixed": (5, {"fixed": 1.0}),
    "single atoms": (9, {"largest": 1, "fixed": 0.0}),
    "none fixed": (7, {"fixed": 0.0}),
    "no macro-groups": (63, {"macros": 0.0}),
    "no axes": (100, {"axes": 0.0}),
    "all in macro-groups": (100, {"macros": 1.0}),
    "every group an axis": (100, {"axes": 1.0, "fixed": 0.3}),
    "large": (1025, {}),
    "large groups": (300, {"largest": 100}),
}
"""Numbers of atoms, and options of `tiers`."""


def tiers(
    n_atoms: int,
    *,
    largest: int = LARGEST,
    fixed: float = 0.2,
    axes: float = 0.5,
    macros: float = 0.4,
    seed: int = 0,
) -> dict[str, Any]:
    """The arguments of a random `Tiers`: shares of atoms fixed, of groups with an axis, and in macro-groups.

    The atoms of a group are anywhere; an axis ends in any atom of its group and starts in any other,
    fixed or not; macro-groups are of three groups on average, and may be empty.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_atoms)
    moving = n_atoms - round(fixed * n_atoms)
    sizes = rng.integers(1, largest + 1, moving)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    group_ptr = np.concatenate([ends[ends < moving], [moving]])
    groups = len(group_ptr) - 1
    macro = np.where(rng.random(groups) < macros, rng.integers(0, max(1, groups // 3), groups), -1)
    turned = np.flatnonzero(rng.random(groups) < axes) if groups + n_atoms - moving > 1 else np.zeros(0, np.int64)
    rng.shuffle(turned)
    anchor, bonded = np.zeros_like(turned), np.zeros_like(turned)
    for i, g in enumerate(turned):
        first, last = group_ptr[g], group_ptr[g + 1]
        bonded[i] = order[rng.integers(first, last)]
        anchor[i] = order[(last + rng.integers(0, n_atoms - (last - first))) % n_atoms]
    return {
        "n_atoms": n_atoms,
        "group_ptr": group_ptr,
        "group_atoms": order[:moving],
        "macro_of_group": macro,
        "axis_group": turned,
        "axis_anchor": anchor,
        "axis_bonded": bonded,
        "fixed_atoms": order[moving:],
    }


def positions(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> Array:
    """Points (..., N, 3) in a ball of some 10 units about a point that is not the origin."""
    rng = np.random.default_rng(seed)
    return (10 * rng.standard_normal((*shape, 3)) + np.array([20.0, -10.0, 5.0])).astype(dtype)


def motion(
    batch: int, groups: int, axes: int, macros: int, dtype: Any = np.float64, seed: int = 0, scale: float = 1.0
) -> Motion:
    """Parameters of any size and angle."""
    rng = np.random.default_rng(seed)
    shapes = ((groups, 3), (groups, 3), (axes,), (macros, 3), (macros, 3))
    return Motion(*((scale * rng.standard_normal((batch, *shape))).astype(dtype) for shape in shapes))


def min_bytes(operation: str, batch: int, n_atoms: int, parameters: int, itemsize: int, shared: bool = False) -> int:
    """Bytes that an operation must move; `parameters` are those of a conformation, positions may be `shared`."""
    member = 3 * n_atoms * itemsize
    positions_read = member if shared else batch * member
    if operation == "transform":
        return positions_read + batch * (member + parameters * itemsize)
    if operation == "transform_backward":
        return positions_read + 2 * batch * (member + parameters * itemsize)
    if operation == "energy":
        return 2 * batch * member
    raise ValueError(f"operation={operation!r}: expected transform, transform_backward or energy")


def flops(operation: str, batch: int, count: int) -> int:
    """Operations as the definition counts them: of a transform by atom, of an energy by pair that is not fixed."""
    return {"transform": 60, "transform_backward": 80, "energy": 45}[operation] * batch * count
