"""The golden data of the published 3T implementation, where it is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pykernels.tiered import Parameters, Tiers

_NEARBY = Path(__file__).resolve().parents[2] / "shared/data/tiered/hsp90.npz"
FILE = Path(os.environ.get("PYKERNELS_TIERED_DATA", _NEARBY))
needs_golden = pytest.mark.skipif(not FILE.exists(), reason=f"the golden data is not at {FILE}")

_HELD_IN_FLOAT32 = ("positions", "charge", "epsilon", "sigma")


def golden() -> dict[str, np.ndarray]:
    """Its arrays, those that the published code holds in float32 rounded to it."""
    with np.load(FILE) as data:
        arrays = dict(data)
    return arrays | {name: arrays[name].astype(np.float32).astype(np.float64) for name in _HELD_IN_FLOAT32}


def golden_transform() -> tuple[dict[str, np.ndarray], Tiers, Parameters, np.ndarray]:
    """The same with its Tiers, its Parameters of one conformation, and its positions."""
    data = golden()
    names = ("group_ptr", "group_atoms", "macro_of_group", "axis_group", "axis_anchor", "axis_bonded", "fixed_atoms")
    tiers = Tiers(len(data["positions"]), **{name: data[name] for name in names})
    params = Parameters(*(data[f"p_{name}"][None] for name in Parameters._fields))
    return data, tiers, params, data["positions"]
