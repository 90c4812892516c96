"""Energies by term."""

from __future__ import annotations

from typing import Any

from ._description import Description


class Terms(dict[str, Any]):
    """Energies by term in kcal/mol; ``["total"]`` is their sum, and no item of its own."""

    def __missing__(self, name: str) -> Any:
        if name != "total":
            raise KeyError(f"{name!r}: expected one of {', '.join((*self, 'total'))}")
        return sum(self.values())


def present(description: Description) -> tuple[bool, ...]:
    """Whether a description has something in each of `TERMS`."""
    bonded, mmff = description.bonded, description.mmff
    dihedrals = len(bonded.series_atoms) + len(bonded.periodic_atoms)
    nonbonded = description.nonbonded is not None or len(bonded.pair_atoms) > 0
    tables = (bonded.bond_atoms, bonded.angle_atoms, (0,) * dihedrals, bonded.improper_atoms, bonded.cmap_atoms)
    strain = any(len(each) for each in mmff[::2])
    return (*(len(each) > 0 for each in tables), nonbonded, nonbonded, description.vina is not None, strain)
