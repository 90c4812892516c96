"""The pictures of the report: time against size, roofline, share of the limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pykernels.bench.report import Row

OURS, PEER, LIMIT = "#c1272d", "#8a8a8a", "#222222"
PEER_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#56b4e9", "#cc79a7")
MARKERS = "osD^vP*X"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


def draw(results: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Write the PNGs that these results allow; returns title -> path."""
    from pykernels.bench import inference_plots, search_plots, tiered_plots
    from pykernels.bench.report import medians, rows

    table = rows(results)
    searches = {key: providers for key, providers in medians(results).items() if key[0] == "knn"}
    real: dict[str, Any] = {name: value for study in results.get("studies", []) for name, value in study.items()}
    pictures: dict[str, tuple[str, Callable[[Any], Figure | None], Any]] = {
        "Time against size": ("time_against_size.png", _sweeps, medians(results)),
        "Roofline": ("roofline.png", _roofline, (_large(table), results["pykernels"]["roofs"])),
        "Share of the limit": ("share_of_limit.png", _shares, _large(table)),
        "Search: the three limits": (
            "search_limits.png",
            search_plots.limits,
            (searches, results["pykernels"]["roofs"], real.get("selection rate")),
        ),
        "Search: queries per second against recall": ("search_recall.png", search_plots.curves, real.get("curves")),
        "3T: re-docking of displaced ligands": ("tiered_redocking.png", tiered_plots.redocking, real.get("redocking")),
        "3T: energy against step": ("tiered_descent.png", tiered_plots.descent, real.get("descent")),
        "Inference: latency against cost, as planned and as measured by the paper": (
            "inference_frontier.png",
            inference_plots.frontier,
            real.get("frontier"),
        ),
    }
    written = {}
    with matplotlib.rc_context(STYLE):
        for title, (name, picture, data) in pictures.items():
            figure = picture(data)
            if figure is not None:
                figure.savefig(folder / name, dpi=130)
                written[title] = folder / name
    return written


def _large(table: list[Row]) -> list[Row]:
    """Rows with a limit; of a sweep, only those of the size that its limit's other rows have."""
    limits = {row.limit for row in table if row.sweep}
    size = max((row.elements for row in table if not row.sweep and row.limit in limits), default=0)
    return [row for row in table if row.limit_seconds and (not row.sweep or row.elements == size)]


def _sweeps(groups: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]]) -> Figure | None:
    sweeps: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for providers in groups.values():
        for name, info in providers.items():
            if info["sweep"]:
                sweeps.setdefault(info["sweep"], {}).setdefault(name, []).append((info["elements"], info["median"]))
    if not sweeps:
        return None
    figure = Figure(figsize=(3.6 * len(sweeps) + 0.4, 3.9), layout="constrained")
    axes = figure.subplots(1, len(sweeps), squeeze=False, sharey=True)[0]
    peers = sorted({name for lines in sweeps.values() for name in lines if name != "pykernels" and "limit" not in name})
    colours = dict(zip(peers, PEER_COLOURS * 3, strict=False))
    for axis, (title, lines) in zip(axes, sweeps.items(), strict=True):
        for name, points in lines.items():
            x, y = zip(*sorted(points), strict=True)
            if "limit" in name:
                axis.plot(x, y, "--", color=LIMIT, label=name, linewidth=1)
            elif name == "pykernels":
                axis.plot(x, y, "-o", color=OURS, label=name, linewidth=2, markersize=4, zorder=3)
            else:
                axis.plot(x, y, "-o", color=colours[name], label=name, linewidth=1.2, markersize=3)
        _logarithmic_size(axis)
        axis.set_title(title, fontsize=10)
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_formatter(FuncFormatter(_time))
    axes[0].set_ylabel("time of one call")
    handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _logarithmic_size(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(LogLocator(base=16, numticks=12))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_size))
    axis.set_xlabel("elements")


def _size(n: float, _: object) -> str:
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if n >= size:
            return f"{n / size:.0f} {unit}"
    return f"{n:.0f}"


def _time(seconds: float, _: object) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.999 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _roofline(data: tuple[list[Row], Mapping[str, float]]) -> Figure | None:
    table, roofs = data
    table = [row for row in table if row.flops and row.limit in ("copy", "read")]
    if not table:
        return None
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axis = figure.subplots()
    for name, style in (("copy", "-"), ("read", "--")):
        shares = [row.bytes / row.limit_seconds for row in table if row.limit == name and row.limit_seconds]
        rate = float(np.median(shares)) if shares else roofs[name]
        ridge = roofs["GEMM"] / rate
        line, label = np.array([0.08, ridge, 16.0]), f"{name} {rate / 1e9:.0f} GB/s"
        axis.plot(line, np.minimum(line * rate, roofs["GEMM"]) / 1e9, style, color=LIMIT, linewidth=1.2, label=label)
    gemm = roofs["GEMM"] / 1e9
    axis.annotate(f"fp32 GEMM {gemm:.0f} GFLOP/s", (16, gemm), (0, 4), textcoords="offset points", ha="right")
    operations = list(dict.fromkeys(row.operation for row in table))
    for operation, marker, colour in zip(operations, MARKERS * 2, (OURS, *PEER_COLOURS) * 2, strict=False):
        points = [row for row in table if row.operation == operation]
        axis.scatter(
            [row.flops / row.bytes for row in points],
            [row.flops / row.ours / 1e9 for row in points],
            marker=marker,
            s=34,
            color=colour,
            edgecolor="white",
            linewidth=0.6,
            label=operation,
            zorder=3,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_major_formatter(plain)
    axis.yaxis.set_major_formatter(plain)
    axis.set_xlabel("operations per byte that must move")
    axis.set_ylabel("10⁹ operations per second")
    axis.legend(loc="lower right", frameon=False)
    return figure


def _shares(table: list[Row]) -> Figure | None:
    if not table:
        return None
    figure = Figure(figsize=(7.6, 0.9 + 0.3 * len(table)), layout="constrained")
    axis = figure.subplots()
    positions = np.arange(len(table))[::-1]
    axis.barh(positions, [row.percent or 0 for row in table], height=0.62, color=OURS, label="pykernels", zorder=2)
    axis.scatter(
        [row.peer_percent or np.nan for row in table],
        positions,
        marker="|",
        s=110,
        linewidth=2.4,
        color="#0072b2",
        label="best peer",
        zorder=3,
    )
    axis.set_yticks(positions, [f"{row.operation} {row.case}, {row.limit}" for row in table])
    axis.axvline(100, color=LIMIT, linewidth=1)
    axis.set_xlim(0, min(300.0, max(105.0, *(1.05 * (row.percent or 0) for row in table))))
    axis.set_xlabel("percent of the limit measured in the same rounds")
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    return figure
