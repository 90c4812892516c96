"""draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ._result import Result

_MARKS = "oxs^v*+d#@%&"


def draw(results: Sequence[Result], path: str | Path | None = None, *, columns: int = 72, rows: int = 18) -> str:
    """Latency against cost, on logarithmic axes, as text; of `pareto`.

    Parameters
    ----------
    results : what to draw; one mark for each layout and type of weights
    path : None, or where to write the same as an image (PNG, SVG, PDF, by its ending); needs matplotlib
    columns, rows : of the text, without axes

    Raises ValueError for no results, NotImplementedError for an image where matplotlib is not installed.

    Examples
    --------
    >>> from pykernels.inference.plan import draw, pareto
    >>> print(draw(pareto("palm-62b", "tpu-v4", 16, context=2048, weights="int8"), columns=32, rows=5))
    chip-milliseconds a token
         66.3 |o
              |oo
              | o
              | oo
        0.692 |     o     o     x      x      x
              +--------------------------------
               4.142                      88.56
               milliseconds a step
              o ws1d, int8 weights
              x ws2d, int8 weights
    """
    if not results:
        raise ValueError("results is empty: expected at least one")
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(f"{result.layout}, {result.work.weights} weights", []).append(result)
    if path is not None:
        _image(groups, path)
    x = [1e3 * result.seconds for result in results]
    y = [1e3 * result.cost for result in results]
    canvas = [[" "] * columns for _ in range(rows)]
    for mark, members in zip(_MARKS, groups.values(), strict=False):
        for result in members:
            column = _place(1e3 * result.seconds, x, columns)
            canvas[rows - 1 - _place(1e3 * result.cost, y, rows)][column] = mark
    labels = [f"{max(y):.3g}", *[""] * (rows - 2), f"{min(y):.3g}"]
    lines = ["chip-milliseconds a token"]
    lines += [f"{label:>9} |{''.join(line).rstrip()}" for label, line in zip(labels, canvas, strict=True)]
    lines.append(" " * 10 + "+" + "-" * columns)
    unit = "a step" if results[0].work.phase == "decode" else "of prefill"
    lines.append(" " * 11 + f"{min(x):<{columns // 2}.4g}{max(x):>{columns - columns // 2}.4g}")
    lines.append(" " * 11 + f"milliseconds {unit}")
    lines += [f"{mark:>11} {name}" for mark, name in zip(_MARKS, groups, strict=False)]
    return "\n".join(lines)


def _place(value: float, values: list[float], cells: int) -> int:
    low, high = math.log(min(values)), math.log(max(values))
    return round((math.log(value) - low) / (high - low) * (cells - 1)) if high > low else 0


def _image(groups: dict[str, list[Result]], path: str | Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NotImplementedError("an image needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, members in groups.items():
        axes.loglog([1e3 * r.seconds for r in members], [1e3 * r.cost for r in members], "o", label=name)
    first = next(iter(groups.values()))[0]
    axes.set_title(f"{first.model.name} on {first.chip.name}, {first.work.phase}, context {first.work.context}")
    axes.set_xlabel("milliseconds a step" if first.work.phase == "decode" else "milliseconds of prefill")
    axes.set_ylabel("chip-milliseconds a token")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path)
