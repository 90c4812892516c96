"""Energies that drive conformations: force fields from arrays, from OpenMM, and one that needs no preparation."""

from ._description import Description, Nonbonded, VinaAtoms
from ._forcefield import ForceField
from ._terms import Terms

__all__ = ["Description", "ForceField", "Nonbonded", "Terms", "VinaAtoms"]
