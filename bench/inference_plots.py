"""The picture of the plan: latency against cost, with the points that the paper measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

COLOURS = {"int8": "#c1272d", "bf16": "#0072b2"}
BLACK = "#222222"
XLABEL = {"decode": "milliseconds a step", "prefill": "milliseconds of prefill"}


def frontier(data: Mapping[str, Any] | None) -> Figure | None:
    """A panel for each phase: what `inference_study.frontier` gives."""
    if not data:
        return None
    figure = Figure(figsize=(4.6 * len(data), 4.4), layout="constrained")
    axes = figure.subplots(1, len(data), squeeze=False)[0]
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis, (phase, parts) in zip(axes, data.items(), strict=True):
        for name, (x, y) in parts["planned"].items():
            colour = next(colour for weights, colour in COLOURS.items() if weights in name)
            axis.plot(x, y, "-" if name.startswith("bound") else "--", color=colour, linewidth=1.3, label=name)
        for number, (x, y, label) in enumerate(parts["measured"]):
            axis.plot(x, y, "o", color=BLACK, markersize=5, zorder=3, label=None if number else "measured")
            above = label.endswith("bf16")
            axis.annotate(label, (x, y), (6, 4 if above else -12), textcoords="offset points", fontsize=8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.xaxis.set_major_formatter(plain)
        axis.yaxis.set_major_formatter(plain)
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(XLABEL[phase])
        axis.set_title(phase, fontsize=10)
    axes[0].set_ylabel("chip-milliseconds a token")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure
