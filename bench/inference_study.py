"""The plan of PaLM 540B beside what "Efficiently Scaling Transformer Inference" (arXiv 2211.05102) measured, and its
proof: every layout run on a mesh of virtual chips, whose collectives count bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pykernels.inference import mesh, plan
from pykernels.inference.plan.volumes import Shapes

MODEL, CHIP, CHIPS = "palm-540b", "tpu-v4", 64
CONTEXT, NEW_TOKENS = 2048, 64
BATCHES = tuple(2**n for n in range(11))


class Point(NamedTuple):
    """Seconds that the paper measured: of a prefill, or of a step of a decode."""

    source: str
    phase: str
    batch: int
    weights: str
    seconds: float

    @property
    def tokens(self) -> int:
        return self.batch * (CONTEXT if self.phase == "prefill" else 1)

    @property
    def cost(self) -> float:
        """Chip-seconds a token."""
        return CHIPS * self.seconds / self.tokens


POINTS = (
    Point("table 2", "prefill", 1, "int8", 0.29),
    Point("table 2", "prefill", 512, "bf16", 85.2),
    Point("table 2", "decode", 64, "int8", 1.82 / NEW_TOKENS),
    Point("section 4.4", "decode", 64, "bf16", 0.0369),
    Point("table 2", "decode", 512, "bf16", 6.0 / NEW_TOKENS),
)
CONTEXTS = (
    ("multi-head", "heads", 128, 1320),
    ("multi-head", "heads", 512, 330),
    ("multi-query", "heads", 128, 660),
    ("multi-query", "heads", 512, 165),
    ("multi-query", "batch", 128, 43_000),
    ("multi-query", "batch", 512, 10_700),
)
"""The longest contexts of table 1: heads of keys, what attention is split over, batch, tokens."""

PROVED = Shapes(width=32, hidden=64, heads=8, kv_heads=1, head_dim=4)
TORUS = 2, 2, 2


def study(quick: bool, progress: Callable[[int, int, str], None] | None = None) -> dict[str, Any]:
    """Tables as `real.study` has them, and "frontier" for the picture; seconds of work, `quick` or not.

    `progress(done, total, label)` is called before each step and at the end.
    """
    steps: dict[str, Callable[[], Any]] = {
        "measured": measured,
        "contexts": contexts,
        "proof": proof,
        "frontier": frontier,
    }
    done, found = itertools.count(), dict[str, Any]()
    for label, make in steps.items():
        if progress is not None:
            progress(next(done), len(steps), label)
        found[label] = make()
    if progress is not None:
        progress(len(steps), len(steps), "done")
    notes = [
        "the bound has all communication hidden behind computing, the other none; calibrated: fractions of the FLOPs "
        "and of the bandwidth and an overhead for each pass, fitted to the measured points of the same phase",
        "MFU: 2 N tokens over the FLOPs of all chips in that time",
        "proof: bytes that the busiest chip receives, counted and by formula; error against the whole block in float64",
    ]
    return {
        "title": "The plan beside the paper",
        "source": f"{MODEL} on {CHIPS} {CHIP}, context {CONTEXT}; arXiv 2211.05102",
        "tables": [found["measured"], found["contexts"], found["proof"]],
        "notes": notes,
        "frontier": found["frontier"],
    }


def measured() -> dict[str, Any]:
    """Every point of the paper beside the plan."""
    rows: list[list[Any]] = []
    for point in POINTS:
        bound, plain = (_planned(point, overlap) for overlap in (1.0, 0.0))
        rows.append(
            [
                f"{point.phase}, {point.batch}, {point.weights}",
                point.source,
                f"{plain.layout}/{plain.attention}",
                1e3 * point.seconds,
                1e3 * bound.seconds,
                1e3 * plain.seconds,
                point.seconds / plain.seconds,
                f"{plan.utilisation(plain.model.multiplied, CHIPS, plain.chip.bf16, point.tokens, point.seconds):.0%}",
                f"{plain.mfu:.0%}",
                plain.limit,
            ]
        )
    columns = (
        *("phase, batch, weights", "source", "layout/attention", "measured ms", "bound ms", "no overlap ms"),
        *("measured / no overlap", "MFU measured", "MFU, no overlap", "limit"),
    )
    return {"title": "Measured times and the plan's", "columns": columns, "rows": rows}


def contexts() -> dict[str, Any]:
    """Table 1: how long contexts fit into 30 % of the memory."""
    named, rows = plan.Model.named(MODEL), list[list[Any]]()
    for heads, over, batch, tokens in CONTEXTS:
        model = named if heads == "multi-query" else replace(named, kv_heads=48, head_dim=128)
        slice = plan.Slice.of(plan.Chip.named(CHIP), (4, 4, 4))
        found = plan.longest_context(model, CHIP, slice, batch=batch, layout="ws2d", attention=over, share=0.3)
        rows.append([heads, over, batch, tokens, found])
    columns = ("heads of keys", "attention over", "batch", "table 1", "planned")
    return {"title": "Longest context in 30 % of the memory", "columns": columns, "rows": rows}


def proof() -> dict[str, Any]:
    """What every layout moved on a mesh of virtual chips, counted and by formula."""
    rows: list[list[Any]] = []
    for row in mesh.prove(PROVED, TORUS, batch=8).rows:
        verdict = "equal" if row.same and row.held else "DIFFERENT"
        place = f"{row.layout}/{row.attention}"
        rows.append([place, row.phase, row.collectives, row.counted, row.formula, verdict, f"{row.error:.0e}"])
    columns = ("layout/attention", "phase", "collectives", "bytes counted", "bytes by formula", "every chip", "error")
    return {"title": f"Proof on {'x'.join(map(str, TORUS))} virtual chips", "columns": columns, "rows": rows}


def frontier() -> dict[str, Any]:
    """Curves of latency against cost, batch by batch: ``{phase: {"planned": {name: [[ms, ...], [chip-ms, ...]]},
    "measured": [[ms, chip-ms, label], ...]}}``."""
    return {phase: _curves(phase) for phase in ("decode", "prefill")}


def _curves(phase: str) -> dict[str, Any]:
    points = [point for point in POINTS if point.phase == phase]
    fit = ("flops", "bandwidth", "overhead")[: len(points)]
    calibrated = plan.calibrate([(_planned(point, 0.0), point.seconds) for point in points], fit=fit).efficiency
    planned = {}
    for weights in ("int8", "bf16"):
        bound = _curve(phase, weights, overlap=1.0)
        planned[f"bound, {weights} weights"] = bound
        planned[f"calibrated, {weights} weights"] = _curve(phase, weights, efficiency=calibrated)
    label = "B={0.batch}, {0.weights}".format
    return {
        "planned": planned,
        "measured": [[1e3 * point.seconds, 1e3 * point.cost, label(point)] for point in points],
    }


def _curve(phase: str, weights: str, **options: Any) -> list[list[float]]:
    """The fastest of each batch that fits."""
    found = []
    for batch in BATCHES:
        try:
            each = plan.pareto(
                MODEL, CHIP, CHIPS, context=CONTEXT, phase=phase, weights=weights, batches=(batch,), **options
            )
        except ValueError:
            break
        found.append(each[0])
    return [[1e3 * each.seconds for each in found], [1e3 * each.cost for each in found]]


def _planned(point: Point, overlap: float) -> plan.Result:
    fastest: Sequence[plan.Result] = plan.plan(
        MODEL,
        CHIP,
        CHIPS,
        batch=point.batch,
        context=CONTEXT,
        phase=point.phase,
        weights=point.weights,
        overlap=overlap,
    )
    return fastest[0]


def main() -> None:
    """Print the tables."""
    from pykernels.bench.report import cell_text
    from pykernels.cli.table import table

    found = study(True)
    for each in found["tables"]:
        print(f"{each['title']}\n{table(each['columns'], [[cell_text(x) for x in row] for row in each['rows']])}\n")
    print("\n".join(f"- {note}" for note in found["notes"]))


if __name__ == "__main__":
    main()
