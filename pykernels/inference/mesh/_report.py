"""The proof: every layout, run and counted, beside the formulas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ..._options import integer
from ..plan.volumes import ATTENTION, LAYOUTS, Shapes, cache_elements, collectives, weight_elements
from ._block import run_block
from ._cache import Cache
from ._mesh import Mesh
from ._plain import plain_block
from ._weights import norms, place, random_weights

ITEMSIZE = {"activation": 8, "statistic": 8, "weight": 4}


class Row(NamedTuple):
    """One pass of one layout; bytes are of the chip that has most.

    `same` says whether the collectives came in the order and the groups of the formulas, and each chip sent and
    received exactly their bytes; `held` whether each chip's cache and weights are those of the formulas; `error` is the
    largest difference from the unpartitioned block, relative to its largest output.
    """

    layout: str
    attention: str
    phase: str
    collectives: int
    counted: int
    formula: int
    same: bool
    held: bool
    error: float


class Report(NamedTuple):
    """The rows, as a table when printed; `holds` if all are as the formulas say, to a relative error of 1e-12."""

    rows: tuple[Row, ...]

    @property
    def holds(self) -> bool:
        return all(row.same and row.held and row.error <= 1e-12 for row in self.rows)

    def __str__(self) -> str:
        names = f"{'layout':7}{'attention':10}{'phase':9}{'messages':>8}{'counted':>12}{'formula':>12}"
        lines = [names + "  bytes  memory  error"]
        for row in self.rows:
            agreed = ("equal" if row.same else "WRONG") + "  " + ("equal" if row.held else "WRONG")
            lines.append(
                f"{row.layout:7}{row.attention:10}{row.phase:9}{row.collectives:8}{row.counted:12}{row.formula:12}"
                f"  {agreed}   {row.error:.0e}"
            )
        return "\n".join(lines)


def prove(
    shapes: Shapes,
    torus: tuple[int, int, int],
    batch: int,
    prompt: int = 3,
    *,
    steps: int = 1,
    layouts: Iterable[str] = tuple(LAYOUTS),
    attention: Iterable[str] = ATTENTION,
    rotary_theta: float | None = None,
    seed: int = 0,
) -> Report:
    """Runs a block of random weights in each layout: a prefill of `prompt` tokens, and decode `steps`.

    Activations are float64 and weights float32, so that the bytes tell them apart.

    >>> from pykernels.inference.mesh import prove
    >>> from pykernels.inference.plan.volumes import Shapes
    >>> shapes = Shapes(width=16, hidden=32, heads=4, kv_heads=1, head_dim=4)
    >>> report = prove(shapes, (2, 2, 1), batch=4)
    >>> report.holds, len(report.rows)
    (True, 20)
    >>> print(report)  # doctest: +ELLIPSIS
    layout attention phase    messages     counted     formula  bytes  memory  error
    ws1d   heads     prefill         5        5184        5184  equal  equal   ...
    """
    rows: list[Row] = []
    integer("steps", steps, 0)
    for layout in layouts:
        for over in attention:
            rows += _passes(shapes, Mesh(*torus), layout, over, batch, [prompt] + [1] * steps, rotary_theta, seed)
    return Report(tuple(rows))


def _passes(
    shapes: Shapes,
    mesh: Mesh,
    layout: str,
    over: str,
    batch: int,
    lengths: list[int],
    rotary_theta: float | None,
    seed: int,
) -> Iterable[Row]:
    random, weights = np.random.default_rng(seed), random_weights(shapes, seed)
    placed, cache, plain = place(mesh, layout, over, shapes, weights), Cache(), None
    matrices = [tensor for name, tensor in placed.items() if name not in norms(shapes)]
    stored = 4 * weight_elements(shapes, over, mesh.torus)
    lean = all(sum(tensor.shards[chip].nbytes for tensor in matrices) == stored for chip in range(mesh.chips.count))
    for step, length in enumerate(lengths):
        x = random.normal(size=(batch, length, shapes.width))
        expected, plain = plain_block(shapes, weights, x, plain, rotary_theta=rotary_theta)
        mesh.log.clear()
        y = run_block(mesh, layout, over, shapes, placed, x, cache, rotary_theta=rotary_theta)
        formulas = collectives(shapes, layout, over, mesh.torus, batch, length)
        bytes_each = [c.moved * ITEMSIZE[c.moves] for c in formulas]
        same = [(t.kind, set(t.axes), t.group, t.where) for t in mesh.log] == [
            (c.kind, set(c.axes), c.group, c.where) for c in formulas
        ] and all(
            (t.sent == size).all() and (t.received == size).all() for t, size in zip(mesh.log, bytes_each, strict=True)
        )
        kept = 8 * cache_elements(shapes, layout, over, mesh.torus, batch, cache.length)
        yield Row(
            layout,
            over,
            "decode" if step else "prefill",
            len(mesh.log),
            int(sum((t.received for t in mesh.log), np.zeros(1, np.int64)).max()),
            sum(bytes_each),
            same,
            lean and bool((cache.nbytes == kept).all()),
            float(np.abs(y - expected).max() / np.abs(expected).max()),
        )
