"""The pictures of the search: TPU-KNN's roofline of three limits, and queries per second against recall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pykernels.bench.harness import OURS

RED, BLACK = "#c1272d", "#222222"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#8a8a8a")
MARKERS = {"ip": "o", "l2": "s", "cosine": "D"}
ROWS, DIMENSIONS = 100_000, 128
OPERATIONS = {1: "one maximum a score", 3: "compare and select value and index: TPU-KNN's three"}


def limits(data: tuple[Mapping[Any, Mapping[str, Any]], Mapping[str, float], float | None]) -> Figure | None:
    """FLOP/s of each `knn` against its FLOP per byte, under memory, matrix product and operations on scores."""
    groups, roofs, selection = data
    points = [(case, name, info) for (_, case), found in groups.items() for name, info in found.items()]
    if not points:
        return None
    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    axis = figure.subplots()
    intensity = [info["flops"] / info["bytes"] for _, _, info in points]
    product = max(info["flops"] / info["roof_seconds"] for _, _, info in points)
    line = np.geomspace(min(intensity) / 2, 2 * max(intensity), 200)
    axis.plot(line, np.minimum(line * roofs["read"], product) / 1e9, color=BLACK, linewidth=1.4)
    _label(axis, line[0], 3 * line[0] * roofs["read"] / 1e9, f"memory {roofs['read'] / 1e9:.0f} GB/s", "left")
    _label(
        axis, 1.2 * product / roofs["read"], product / 1e9, f"matrix product alone {product / 1e9:.0f} GFLOP/s", "left"
    )
    for count, meaning in OPERATIONS.items():
        if selection is None:
            break
        ceiling = selection * 2 * DIMENSIONS / count / 1e9
        axis.axhline(ceiling, color=BLACK, linewidth=1, linestyle="--" if count == 1 else ":")
        _label(axis, line[-1], ceiling, f"operations on scores: {meaning}")
    names = list(dict.fromkeys(name for _, name, _ in points if not name.endswith("limit")))
    peers = dict(zip((name for name in names if name != OURS), COLOURS, strict=False))
    for case, name, info in points:
        if name not in names:
            continue
        ours = name == OURS
        axis.scatter(
            info["flops"] / info["bytes"],
            info["flops"] / info["median"] / 1e9,
            marker=MARKERS.get(case.split()[0], "o"),
            s=44 if ours else 22,
            color=RED if ours else peers[name],
            edgecolor="white",
            linewidth=0.5,
            zorder=4 if ours else 3,
        )
    for name in names:
        axis.scatter([], [], color=RED if name == OURS else peers[name], label=name)
    for metric in dict.fromkeys(case.split()[0] for case, _, _ in points):
        axis.scatter([], [], marker=MARKERS.get(metric, "o"), color="white", edgecolor=BLACK, label=metric)
    _logarithmic(axis.xaxis, axis.set_xscale)
    _logarithmic(axis.yaxis, axis.set_yscale)
    axis.set_xlabel(f"FLOP per byte that must move ({ROWS:,} x {DIMENSIONS} fp32, from 1 query on the left)")
    axis.set_ylabel("GFLOP/s of the whole search")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def curves(data: Mapping[str, Any] | None) -> Figure | None:
    """A point for every exact search, a line for every approximate one."""
    if not data:
        return None
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axis = figure.subplots()
    others = iter(COLOURS * 2)
    shades = iter((RED, "#e8746c", "#7d1a1f", "#f2a6a0"))
    for name, points in data["series"].items():
        x, y = zip(*points, strict=True)
        ours = name.startswith(OURS)
        colour = next(shades if ours else others)
        axis.plot(x, y, "-o", color=colour, label=name, linewidth=1.6, markersize=7 if ours else 5, zorder=4 - ours)
    _logarithmic(axis.yaxis, axis.set_yscale)
    axis.set_xlabel(data["x"])
    axis.set_ylabel(data["y"])
    axis.set_title(data["title"], fontsize=10)
    axis.legend(loc="lower left", frameon=False, fontsize=8)
    return figure


def _label(axis: Any, x: float, y: float, text: str, side: str = "right") -> None:
    axis.annotate(text, (x, y), (0, 4), textcoords="offset points", ha=side, fontsize=8)


def _logarithmic(axis: Any, scale: Any) -> None:
    scale("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
