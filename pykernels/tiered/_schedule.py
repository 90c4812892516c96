"""The stages of 3T: settle the ligand, kick everything, relax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ._build import BuiltTiers
from ._constants import Schedule
from ._descent import Descent
from ._parameters import Parameters
from ._tiers import Tiers

Array = np.ndarray[Any, Any]
_STRIDE = 20
"""Steps between two looks at the keyboard."""


def settle(energy: Any, start: Array, ligand: Tiers, schedule: Schedule) -> Iterator[tuple[Array, Array]]:
    """The first two stages, in which the ligand moves in a frozen protein.

    Yields the energies before each of some steps, and the coordinates (N, 3) after them. They are the same for
    all conformations, which part company at the kick.
    """
    if hasattr(energy, "with_fixed"):
        energy = energy.with_fixed(ligand.fixed_atoms)
    axes = (ligand.axis_group, ligand.axis_anchor, ligand.axis_bonded)
    free = Tiers(ligand.n_atoms, ligand.group_ptr, ligand.group_atoms, None, *axes, ligand.fixed_atoms)
    stages = (
        (free, schedule.ligand_steps, schedule.ligand_rate),
        (ligand, schedule.frozen_steps, schedule.frozen_rate),
    )
    for tiers, steps, rate in stages:
        descent = Descent(tiers, energy, start[None].copy(), clip=schedule.clip)
        for done in range(0, steps, _STRIDE):
            history = descent.run(min(_STRIDE, steps - done), rate)
            start = descent.coordinates()[0]
            yield history[:, 0], start


def flips(built: BuiltTiers, x: Array, distance: float) -> Array:
    """The axes, of those marked flippable, whose half turn at x (N, 3) keeps all other atoms `distance` away."""
    tiers, x, found = built.tiers, x.astype(np.float64), []
    for axis in np.flatnonzero(built.flippable):
        group = tiers.axis_group[axis]
        atoms = tiers.group_atoms[tiers.group_ptr[group] : tiers.group_ptr[group + 1]]
        anchor = x[tiers.axis_anchor[axis]]
        u = x[tiers.axis_bonded[axis]] - anchor
        r = x[atoms] - anchor
        turned = anchor + 2 * (r @ u)[:, None] * u / (u @ u) - r
        others = np.delete(x, atoms, axis=0)
        if all(np.min(np.sum((others - each) ** 2, 1)) >= distance**2 for each in turned):
            found.append(axis)
    return np.array(found, np.int64)


def kick(
    tiers: Tiers, may_flip: Array, schedule: Schedule, seed: int, members: Sequence[int], dtype: Any
) -> Parameters:
    """Where the relaxation of the conformations `members` starts; each is drawn from (seed, its number) alone."""
    params = Parameters.zeros(tiers, len(members), dtype)
    translation, rotation = (schedule.strength * each for each in (schedule.kick_translation, schedule.kick_rotation))
    for row, member in enumerate(members):
        random = np.random.default_rng([seed, member])
        params.translation[row] = translation * random.random((tiers.n_groups, 3))
        params.euler[row] = rotation * random.random((tiers.n_groups, 3))
        params.axis[row] = schedule.kick_axis * random.uniform(-1, 1, tiers.n_axes)
        params.axis[row, may_flip] += np.pi * (random.random(len(may_flip)) < schedule.flip_probability)
    return params


def kicked(energy: Any, start: Array, tiers: Tiers, params: Parameters, schedule: Schedule) -> Descent:
    """The conformations that `params` make of the coordinates (N, 3), about to relax."""
    positions = np.repeat(start[None], len(params.translation), 0)
    return Descent(tiers, energy, positions, parameters=params, clip=schedule.clip)


def relax(descent: Descent, schedule: Schedule) -> Iterator[Array]:
    """The last stage; yields the energies (steps, B) before each of some steps, once these are made."""
    rates, macro_rates = schedule.rates(), schedule.rates(macro=True)
    for done in range(0, len(rates), _STRIDE):
        part = slice(done, done + _STRIDE)
        yield descent.run(len(rates[part]), rates[part].tolist(), macro_rates[part].tolist())
