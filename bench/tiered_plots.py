"""The pictures of 3T: deviation from the crystal before and after, and energy against step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

RED, BLUE, BLACK = "#c1272d", "#0072b2", "#222222"


def redocking(data: Mapping[str, Any] | None) -> Figure | None:
    """A point for every displaced ligand: RMSD at the start, and of the pose that each method ends with."""
    if not data:
        return None
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axis = figure.subplots()
    methods = [name for name in data if name != "start"]
    for name, colour, marker in zip(methods, (BLUE, RED), "os", strict=False):
        if len(data[name]) == len(data["start"]):
            axis.scatter(data["start"], data[name], color=colour, marker=marker, s=26, label=name, alpha=0.8)
    top = 1.05 * max(max(values) for values in data.values())
    axis.plot([0, top], [0, top], color=BLACK, linewidth=0.8)
    axis.axhline(2, color=BLACK, linewidth=0.8, linestyle="--")
    axis.set(xlim=(0, top), ylim=(0, top), xlabel="ligand RMSD to the crystal at the start, Å", ylabel="at the end, Å")
    axis.legend(frameon=False)
    return figure


def descent(data: Mapping[str, Any] | None) -> Figure | None:
    """The energy of the settling ligand, then the least of all conformations after the kick."""
    if not data:
        return None
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axis = figure.subplots()
    settling, relaxing = (np.array(data[name]) for name in ("settling", "relaxing"))
    axis.plot(np.arange(len(settling)), settling, color=BLACK, label="ligand in the frozen protein")
    axis.plot(len(settling) + np.arange(len(relaxing)), relaxing, color=RED, label="least of all, after the kick")
    both = np.concatenate([settling, relaxing[len(relaxing) // 8 :]])
    both = both[np.isfinite(both)]
    if both.size:
        low, high = both.min(), np.quantile(both, 0.98)
        axis.set_ylim(low - 0.05 * (high - low) - 1, high + 0.1 * (high - low) + 1)
    axis.set(xlabel="step", ylabel="energy, kcal/mol")
    axis.set_title(data["title"], fontsize=10)
    axis.legend(frameon=False)
    return figure
