"""3T on real structures: published energies, and crystal ligands that were displaced and find their way back."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pykernels.bench import tiered_data as data
from pykernels.bench import tiered_memory

Array = np.ndarray[Any, Any]

NEAR = 2.0
"""Angstrom of RMSD within which a pose counts as recovered."""

NEEDED = ("posebusters", "rdkit", "biotite")


class Effort(NamedTuple):
    """How much a study does; `radius` is that of the pocket that moves, in angstrom."""

    starts: int
    conformations: int
    settle_steps: int
    relax_steps: int
    rigid_steps: int
    radius: float


QUICK = Effort(starts=5, conformations=8, settle_steps=200, relax_steps=1000, rigid_steps=400, radius=6.0)
FULL = Effort(starts=10, conformations=20, settle_steps=200, relax_steps=2000, rigid_steps=1000, radius=8.0)


def study(
    quick: bool, progress: Callable[[int, int, str], None] | None = None, effort: Effort | None = None
) -> dict[str, Any]:
    """Tables as `real.study` has them, and what the plots show: ``"redocking"`` and ``"descent"``.

    `quick` takes fewer displacements and steps, or as many as `effort` says. What cannot be done here is said
    in the notes. `progress(done, total, label)` is called before each step and at the end.
    """
    effort = effort or (QUICK if quick else FULL)
    names = _complexes()
    done, total = itertools.count(), 3 + len(names)
    found: dict[str, Any] = {"title": "3T on real structures", "source": "", "tables": [], "notes": []}

    def step(label: str) -> None:
        if progress is not None:
            progress(next(done), total, label)

    step("energies")
    if data.published() is None:
        found["notes"].append(f"no published energies: {data.VARIABLE} names no file")
    else:
        found["tables"].append(_energies())
    step("memory")
    if sys.platform.startswith("linux"):
        found["tables"].append(tiered_memory.table())
    if names:
        _redock(names, quick, effort, step, found)
    else:
        found["notes"].append(f"no re-docking: it needs the packages {', '.join(NEEDED)}")
    step("done")
    found["source"] = ", ".join(["HSP90 of the 3T authors"] * (data.published() is not None) + list(names)) or "nothing"
    return found


def _complexes() -> tuple[str, ...]:
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        return ()
    names: tuple[str, ...] = importlib.import_module("pykernels.bench.tiered_redocking").CRYSTALS
    return names


def _energies() -> dict[str, Any]:
    """The terms at the input, beside those that the authors' float32 code prints."""
    arrays = data.published() or {}
    field, rows = data.force_field(arrays), []
    positions = arrays["positions"].astype(np.float32)
    single, double = (field.energy_and_gradient(positions.astype(kind))[0] for kind in (np.float32, np.float64))
    for name, value in zip(arrays["term_names"].tolist(), arrays["initial_terms"].tolist(), strict=True):
        ours = float(single[name]), float(double[name])
        rows.append([name, value, *ours, f"{abs(ours[1] - value) / abs(value):.1e}"])
    columns = ("term", "published, fp32", "pykernels fp32", "pykernels fp64", "relative difference")
    return {"title": "HSP90 at the input, kcal/mol", "columns": columns, "rows": rows}


def _redock(names: tuple[str, ...], quick: bool, effort: Effort, step: Callable[[str], None], found: Any) -> None:
    """Add the tables and notes of all complexes, and the points of the plots."""
    recovery = importlib.import_module("pykernels.bench.tiered_recovery")
    recovered, sound = [], []
    points: dict[str, list[float]] = {"start": [], recovery.RIGID: [], recovery.OURS: []}
    for name in names:
        step(f"re-docking {name}")
        try:
            result = recovery.recover(name, effort, quick)
        except (ValueError, NotImplementedError) as error:
            found["notes"].append(f"{name}: {type(error).__name__}: {error}")
            continue
        recovered += result.recovered(name, NEAR)
        sound += result.sound(name)
        for method, values in result.deviations.items():
            points[method] += values.tolist()
        found.setdefault("descent", {"title": f"{name}, one displacement", **result.descent})
    if not recovered:
        return
    found["redocking"] = points
    everything = {method: np.array(values) for method, values in points.items()}
    recovered += recovery.summary("all", everything, NEAR)
    titles = "Re-docking of displaced ligands", "Checks of PoseBusters passed, share of the poses"
    for title, columns, rows in zip(titles, (recovery.COLUMNS, recovery.CHECKED), (recovered, sound), strict=True):
        found["tables"].append({"title": title, "columns": columns, "rows": rows})
    found["notes"] += [
        f"crystal ligands moved by up to 2 angstrom and turned by up to 30 degrees, {effort.starts} times each; RMSD "
        "of heavy atoms without alignment, alike atoms exchanged at will, of the pose of least energy",
        f"3T: {effort.conformations} conformations, {effort.settle_steps} steps of the ligand alone twice, then "
        f"{effort.relax_steps} after the kick and a tenth as many at falling rates, "
        f"pocket of {effort.radius:g} angstrom; rigid receptor: translation, rotation and torsions of the ligand, "
        f"{effort.rigid_steps} steps, no kick; both with the built-in force field",
    ]
