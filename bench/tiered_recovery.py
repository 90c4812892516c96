"""How well displaced ligands are recovered, and what PoseBusters says of the poses."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from pykernels import tiered
from pykernels.bench import tiered_redocking as redocking
from pykernels.bench import tiered_soundness as soundness
from pykernels.tiered import _rmsd

Array = np.ndarray[Any, Any]

OURS, RIGID = "3T", "rigid receptor"
COLUMNS = ("complex", "method", "starts", "mean RMSD", "median RMSD", "within 2 A", "within 1 A", "diversity", "s each")
CHECKED = ("complex", "poses", "number", *soundness.CHECKS, "all")


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Of one complex, by method: RMSD of each start's best pose, seconds of each, checks passed by kept poses."""

    deviations: dict[str, Array]
    seconds: dict[str, float]
    diversity: float
    checks: dict[str, dict[str, Array]]
    descent: dict[str, list[float]]

    def recovered(self, name: str, near: float) -> list[list[Any]]:
        rows = summary(name, self.deviations, near)
        for row in rows:
            row[-2] = round(self.diversity, 2) if row[1] == OURS else None
            row[-1] = round(self.seconds[row[1]], 2) if row[1] in self.seconds else None
        return rows

    def sound(self, name: str) -> list[list[Any]]:
        return [
            [name, poses, len(passed["all"]), *(round(float(each.mean()), 2) for each in passed.values())]
            for poses, passed in self.checks.items()
        ]


def summary(name: str, deviations: dict[str, Array], near: float) -> list[list[Any]]:
    """A row of `COLUMNS` for each method, without diversity and time."""
    rows: list[list[Any]] = []
    for method, each in deviations.items():
        values = each.mean(), np.median(each), np.mean(each <= near), np.mean(each <= near / 2)
        rows.append([name, method, len(each), *(round(float(value), 2) for value in values), None, None])
    return rows


def recover(name: str, effort: Any, quick: bool) -> Recovery:
    """Displace the ligand of a crystal complex `effort.starts` times, and bring it back both ways."""
    crystal = redocking.crystal(name)
    there = crystal.positions[crystal.n_protein :]
    mappings = _rmsd.automorphisms(crystal.ligand)
    starts = [redocking.displaced(crystal, seed) for seed in range(effort.starts)]
    begin = time.perf_counter()
    minimised, _ = redocking.rigid_receptor(starts, effort.rigid_steps)
    seconds = {RIGID: (time.perf_counter() - begin) / len(starts)}
    begin = time.perf_counter()
    schedule = tiered.Schedule(
        ligand_steps=effort.settle_steps,
        frozen_steps=effort.settle_steps,
        relax_steps=effort.relax_steps,
        decay_step=effort.relax_steps // 2,
        final_steps=effort.relax_steps // 10,
    )
    ensembles = [
        tiered.generate(start, n=effort.conformations, radius=effort.radius, schedule=schedule, seed=seed)
        for seed, start in enumerate(starts)
    ]
    seconds[OURS] = (time.perf_counter() - begin) / len(starts)
    best = np.stack([each.coordinates(each.kept[0])[crystal.n_protein :] for each in ensembles if each.kept])
    placed = {
        "start": np.stack([start.positions[crystal.n_protein :] for start in starts]),
        RIGID: minimised,
        OURS: best,
    }
    kept = [each.coordinates(number) for each in ensembles for number in each.kept]
    rigid = [redocking.with_ligand(crystal, pose).positions for pose in minimised]
    checked = {"crystal": [crystal.positions], RIGID: rigid, f"{OURS}, kept": kept}
    protein = redocking.files(name)[0]
    first = ensembles[0]
    return Recovery(
        {method: _rmsd.rmsd(poses, there, mappings) for method, poses in placed.items()},
        seconds,
        float(np.mean([spread(each, mappings) for each in ensembles])),
        {poses: soundness.passed(protein, crystal, each, quick) for poses, each in checked.items()},
        {"settling": first.settling.tolist(), "relaxing": np.min(first.history, 1).tolist()},
    )


def spread(ensemble: tiered.Ensemble, mappings: Array) -> float:
    """The mean RMSD of the ligand between two kept conformations; 0 for fewer than two."""
    poses = [ensemble.coordinates(number)[ensemble.complex.n_protein :] for number in ensemble.kept]
    pairs = [_rmsd.rmsd(np.stack(poses[i + 1 :]), poses[i], mappings) for i in range(len(poses) - 1)]
    return float(np.mean(np.concatenate(pairs))) if pairs else 0.0
