"""Refusal of input that no transform is defined for: numbers that are not finite, axes without a direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import namespace
from ..kernels.tiered.cpu_checks import shortest, sound
from ..kernels.tiered.problem import Motion
from ._parameters import Parameters
from ._tiers import Tiers

Array = np.ndarray[Any, Any]

_MOVED = ("group", "group", "axis", "macro-group", "macro-group")


def refuse_unsound(positions: Any, motion: Motion, tiers: Tiers, backend: str) -> None:
    """Raise for a NaN, an Inf or an axis whose ends coincide, in raw `positions` (B or 1, N, 3) and `motion`."""
    fine = _sound_on_device(positions, motion, tiers) if backend == "gpu" else sound(positions, motion, tiers.tree)
    if not fine:
        arrays = namespace(positions)[1]
        shared = len(positions) == 1 and len(motion.axis) != 1
        _refuse(arrays.to_numpy(positions), [arrays.to_numpy(each) for each in motion], tiers, shared)


def _sound_on_device(positions: Any, motion: Motion, tiers: Tiers) -> bool:
    """The same as `cpu_checks.sound`; waits for the device."""
    tree = tiers.tree_for(positions, "gpu")
    along = positions[:, tree.axis_bonded] - positions[:, tree.axis_anchor]
    least = float(shortest(namespace(positions)[1].dtype_name(positions)))
    wrong = ((along * along).sum(-1) < least).sum()
    for each in (positions, *motion):
        wrong = wrong + (~each.isfinite()).sum()
    return not int(wrong)


def _refuse(positions: Array, motion: list[Array], tiers: Tiers, shared: bool) -> None:
    for name, moved, values in zip(Parameters._fields, _MOVED, motion, strict=True):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            b, number, *_ = bad[0]
            raise ValueError(
                f"params.{name}: {moved} {number} of conformation {b} has {values[b, number]}: expected finite numbers"
            )
    bad = np.argwhere(~np.isfinite(positions))
    if len(bad):
        b, atom, _ = bad[0]
        where = "" if shared else f" of conformation {b}"
        raise ValueError(f"positions: atom {atom}{where} is at {positions[b, atom]}: expected finite coordinates")
    anchor, bonded = tiers.axis_anchor, tiers.axis_bonded
    along = positions[:, bonded] - positions[:, anchor]
    bad = np.argwhere((along * along).sum(-1) < shortest(positions.dtype))
    b, axis = bad[0]
    where = "" if shared else f" in conformation {b}"
    raise ValueError(
        f"positions: the ends of axis {axis}, atoms {anchor[axis]} and {bonded[axis]}, coincide{where}: "
        f"expected an axis of group {tiers.axis_group[axis]} with a direction"
    )
