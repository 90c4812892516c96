"""What a force field refuses, and how it says so."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pykernels.tiered import build_tiers
from pykernels.tiered.energy import ForceField

GOOD = {
    "bonds": [[0, 1], [1, 2]],
    "bond_harmonic": [[100.0, 1.5]] * 2,
    "charge": np.zeros(3),
    "atom_type": [0, 0, 1],
    "epsilon": np.ones((2, 2)),
    "sigma": np.ones((2, 2)),
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bonds": [[0, 3], [1, 2]]}, ValueError, "bonds[0] is [0, 3]: expected atoms from 0 to 2"),
        ({"bonds": [[0, 1, 2]]}, ValueError, "bonds has shape (1, 3): expected (n, 2)"),
        ({"bonds": [[0.0, 1], [1, 2]]}, TypeError, "bonds has dtype float64: expected integers"),
        ({"bond_harmonic": [[100.0, 1.5]]}, ValueError, "bond_harmonic_index has shape (2,): expected (1,)"),
        ({"bond_harmonic": [[np.nan, 1.5]] * 2}, ValueError, "bond_harmonic[0, 0] is nan: expected finite numbers"),
        ({"bond_harmonic_index": [0, 2]}, ValueError, "bond_harmonic_index has values from 0 to 2: expected 0 to 1"),
        ({"charge": ["a", "b", "c"]}, TypeError, "charge has dtype <U1: expected numbers"),
        ({"atom_type": [0, 0, 2]}, ValueError, "atom_type has shape (3,): expected (3,) types from 0 to 1"),
        ({"epsilon": np.ones((2, 3))}, ValueError, "epsilon has shape (2, 3)"),
        ({"sigma": [[1.0, 2], [3, 1]]}, ValueError, "epsilon or sigma is not symmetric"),
        ({"lj_cutoff": 0}, ValueError, "lj_cutoff=0.0"),
        ({"bond": [[1.0, 1.5]]}, TypeError, "bond: not an array of a force field"),
        ({"fixed_atoms": [3]}, ValueError, "fixed_atoms has shape (1,): expected (n,), atoms from 0 to 2"),
        ({"fixed_atoms": [0.5]}, TypeError, "fixed_atoms has dtype float64: expected integers"),
        ({"lj_14": -1}, ValueError, "lj_14=-1: expected a finite factor >= 0"),
        ({"combination": "other"}, ValueError, "combination='other': expected one of lorentz-berthelot, geometric"),
        ({"pairs": "cells"}, ValueError, "pairs='cells': expected finite cutoffs"),
        ({"pairs": 3}, TypeError, "pairs=3: expected a string"),
    ],
)
def test_from_arrays(change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ForceField.from_arrays(**GOOD | change)


def test_what_charges_need():
    with pytest.raises(TypeError, match="sigma is missing: expected it beside charge"):
        ForceField.from_arrays(**{name: value for name, value in GOOD.items() if name != "sigma"})


@pytest.mark.parametrize(
    ("positions", "error", "message"),
    [
        (np.zeros((4, 3)), ValueError, "positions has shape (4, 3): expected (B, 3, 3) or without B"),
        (np.zeros((3, 3), int), TypeError, "positions has dtype int64: expected one of float32, float64"),
        (np.full((2, 3, 3), np.nan), ValueError, "positions of atom 0 in conformation 0 is not finite"),
        (np.float32([[0, 0, 0], [0, 1, -np.inf], [1, 0, 0]]), ValueError, "positions of atom 1 in conformation 0"),
    ],
)
def test_positions(positions, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ForceField.from_arrays(**GOOD).energy_and_gradient(positions)


@pytest.mark.parametrize(("cutoff", "dielectric"), [(0, None), (np.inf, None), (9, 0.5)])
def test_cutoffs(cutoff, dielectric):
    with pytest.raises(ValueError, match="expected a"):
        ForceField.from_arrays(**GOOD).with_cutoff(cutoff, dielectric)


@pytest.mark.parametrize("function", [ForceField.for_pocket, build_tiers])
def test_what_is_no_complex(function):
    with pytest.raises(TypeError, match="complex is a str: expected a Complex, as read_complex gives"):
        function("protein.pdb")


def test_a_backend_that_is_not_there():
    with pytest.raises(ValueError, match="backend='tpu'"):
        ForceField.from_arrays(**GOOD).energy_and_gradient(np.eye(3), backend="tpu")
