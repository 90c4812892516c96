"""Numbers, units and expressions of OpenMM's forces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

KCAL, ANGSTROM = 1 / 4.184, 10.0
"""One kJ/mol and one nm."""
_ELECTRIC_CONSTANT = 8.8541878128e-12 / (1.602176634e-19**2 * 6.02214076e23) * 1e-6
COULOMB_CONSTANT = KCAL * ANGSTROM / (4 * np.pi * _ELECTRIC_CONSTANT)
"""OpenMM's, in kcal/mol angstrom per squared elementary charge."""


def value(quantity: Any) -> Any:
    """The number of a quantity, in the units that OpenMM returns: nm, kJ/mol, radian, dalton, charge."""
    return getattr(quantity, "_value", quantity)  # value_in_unit takes 40 us, for 50,000 numbers of a protein


def integers(rows: Any, width: int) -> Array:
    return np.array(rows, np.int64).reshape(-1, width)


def refuse(force: Any, what: str, advice: str) -> NotImplementedError:
    return NotImplementedError(f"{type(force).__name__} {force.getName()!r}: {what}; {advice}")


def known_energy(force: Any, known: Mapping[str, tuple[str, ...]], names: list[str]) -> tuple[float, str]:
    """The factor and the rest of the energy of a force, if it is `known` to have parameters of these names."""
    energy = "".join(force.getEnergyFunction().split()).rstrip(";")
    energy = re.sub(r"\b3\.14\d*", "pi", energy).replace(";pi=pi", "")
    factor, times, rest = energy.partition("*")
    if times and re.fullmatch(r"[\d.eE+-]+", factor):
        number, energy = float(factor), rest
    else:
        number = 1.0
    if known.get(energy) != tuple(names):
        what = f"energy {force.getEnergyFunction()!r} of {', '.join(names)} is not one that is known"
        raise refuse(force, what, "remove the force, or add its energy by a callable of your own")
    return number, energy
