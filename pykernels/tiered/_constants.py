"""The constants of the method."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Schedule:
    """The constants of the optimisation, with the values published (arXiv 2301.00984 and its code).

    Rates are Adam's: angstrom and radian a step. A kick moves each group by uniform numbers from 0 to
    ``kick_translation * strength`` angstrom along each axis and 0 to ``kick_rotation * strength`` radian for
    each Euler angle, and turns each axis by up to +-`kick_axis` radian; aromatic side chains whose half
    turn brings no two atoms closer than `flip_distance` angstrom make it with `flip_probability`.

    The last `final_steps`, in which the rates fall to 0, are not published: without them (0) Adam's constant
    rate leaves each conformation some 10 kcal/mol above the minimum that it circles.

    Examples
    --------
    >>> from pykernels.tiered import Schedule
    >>> Schedule(relax_steps=4, decay_step=2, final_steps=2).rates().round(3)
    array([0.1  , 0.1  , 0.07 , 0.07 , 0.07 , 0.035])
    """

    ligand_steps: int = 200  # the ligand alone moves, without its macro-group
    ligand_rate: float = 1e-2
    frozen_steps: int = 200  # and with it
    frozen_rate: float = 1e-3
    strength: float = 5.0
    kick_translation: float = 0.3
    kick_rotation: float = 0.03
    kick_axis: float = 0.15
    flip_probability: float = 0.5
    flip_distance: float = 1.0
    relax_steps: int = 2000  # everything moves
    rate: float = 0.1
    macro_rate: float = 0.01
    decay: float = 0.7  # of both rates, once
    decay_step: int = 1000
    final_steps: int = 200
    clip: float = 1e11  # of each component of the gradient

    def __post_init__(self) -> None:
        for field in fields(self):
            value, steps = getattr(self, field.name), "step" in field.name
            if isinstance(value, bool) or not isinstance(value, int | np.integer if steps else int | float | np.number):
                raise TypeError(f"{field.name}={value!r}: expected {'an integer' if steps else 'a number'}")
            if not 0 <= value < np.inf:
                raise ValueError(f"{field.name}={value!r}: expected a number that is finite and at least 0")
        if self.flip_probability > 1:
            raise ValueError(f"flip_probability={self.flip_probability!r}: expected a number from 0 to 1")

    @property
    def settling_steps(self) -> int:
        return self.ligand_steps + self.frozen_steps

    @property
    def steps(self) -> int:
        """Steps of a conformation after its kick."""
        return self.relax_steps + self.final_steps

    def rates(self, macro: bool = False) -> Array:
        """(steps,): the rate of each step after the kick, of micro or macro parameters."""
        first, step = self.macro_rate if macro else self.rate, np.arange(self.steps)
        falling = np.minimum((self.steps - step) / max(self.final_steps, 1), 1.0)
        return np.where(step < self.decay_step, first, first * self.decay) * falling
