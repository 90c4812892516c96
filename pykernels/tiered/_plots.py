"""The picture of an ensemble. Importing this needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def plot(ensemble: Any, path: Path) -> None:
    """Energy against step, and energy against the ligand's RMSD to the input, as a PNG."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    settled = len(ensemble.settling)
    left.plot(np.arange(settled), ensemble.settling, color="black", linewidth=1)
    steps = settled + np.arange(len(ensemble.history))
    kept = np.array([verdict == "kept" for verdict in ensemble.verdict], bool)
    left.plot(steps, ensemble.history[:, ~kept], color="lightgray", linewidth=0.6)
    left.plot(steps, ensemble.history[:, kept], linewidth=0.8)
    values = np.concatenate([ensemble.settling, ensemble.history[len(ensemble.history) // 4 :].ravel()])
    values = values[np.isfinite(values)]
    if values.size:
        low, high = values.min(), np.quantile(values, 0.98)
        margin = 0.05 * (high - low) or 1.0
        left.set_ylim(low - margin, high + margin)
    left.set(xlabel="step", ylabel="energy, kcal/mol", title="settling (black), then each conformation after its kick")
    right.scatter(ensemble.ligand_rmsd[~kept], ensemble.total[~kept], s=16, color="lightgray", label="not kept")
    right.scatter(ensemble.ligand_rmsd[kept], ensemble.total[kept], s=22, label="kept")
    right.set(xlabel="ligand RMSD to the input, angstrom", ylabel="energy, kcal/mol")
    right.legend()
    figure.savefig(path, format="png", dpi=130)
