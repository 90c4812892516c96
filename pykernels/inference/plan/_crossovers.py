"""crossovers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ... import _options
from . import _paper, volumes
from ._chip import Chip
from ._costs import Partition, Work
from ._dtypes import WEIGHTS
from ._efficiency import Efficiency, times
from ._model import Model
from ._numbers import positive
from ._plan import checked, named, partitions
from ._slice import Slice


class Crossover(NamedTuple):
    """From `tokens` in a pass on (B L), layout `after` is faster than `before`."""

    tokens: float
    before: str
    after: str


_FORMULAS = ("paper", "paper_exact", "block", "searched")


def crossovers(
    model: Model | str,
    chip: Chip | str,
    slice: Slice,
    *,
    formula: str = "block",
    attention: str = "batch",
    length: int = 1,
    weights: str = "bf16",
    efficiency: float | Efficiency = 1.0,
    overlap: float = 0.0,
    most: int = 1 << 22,
) -> list[Crossover]:
    """The tokens in a pass at which the best layout changes, ascending.

    Parameters
    ----------
    model, chip, slice : what runs where; the factorisation is given
    formula : how layouts are compared
        "paper": bytes by the closed forms of section 3.2, two matrices, without (K - 1) / K. For PaLM 540B on 4 x 4 x 4
        chips: weights gathered over x from B L = E = F / 4 on, over xy from F, over xyz from 16 F.
        "paper_exact": the same with (K - 1) / K.
        "block": bytes of all collectives of a block, by `volumes`: attention, gates and the type of `weights` too.
        "searched": seconds of a pass, as `plan` has them, of batches of `length` tokens each.
    attention, weights : for "block" and "searched"
    length, efficiency, overlap : for "searched", over batches below the number of chips and multiples of it, for others
        are padded to one. Memory is not asked.
    most : tokens up to which "searched" looks

    All but the last are lines ``constant + slope * tokens`` (weights, activations), and their lower envelope is exact.

    Examples
    --------
    >>> from pykernels.inference.plan import Chip, Slice, crossovers
    >>> slice = Slice.of(Chip.named("tpu-v4"), (4, 4, 4))
    >>> for tokens, before, after in crossovers("palm-540b", "tpu-v4", slice, formula="paper"):
    ...     print(f"{tokens:,.0f} tokens: {before} -> {after}")
    18,432 tokens: ws2d -> wgx
    73,728 tokens: wgx -> wgxy
    1,179,648 tokens: wgxy -> wgxyz
    """
    model, chip = named(model, chip)
    _options.choice("formula", formula, _FORMULAS)
    _options.choice("attention", attention, volumes.ATTENTION)
    _options.choice("weights", weights, WEIGHTS)
    if not isinstance(slice, Slice):
        raise TypeError(f"slice is a {type(slice).__name__}: expected a Slice")
    over = list(partitions(model, [slice], attention=attention))
    if formula == "searched":
        work = checked(Work("prefill", _options.integer("length", length, 1), weights=weights))
        knobs = Efficiency.of(efficiency), positive("overlap", overlap, zero=True, most=1.0)
        return _searched(over, chip, work, *knobs, _options.integer("most", most, 1))
    if formula == "block":
        lines = [_line(each, Work("decode", 1, weights=weights)) for each in over]
    else:
        sizes, exact = (model.width, model.hidden, slice.shape), formula == "paper_exact"
        lines = [_paper.feedforward(each.layout, *sizes, exact=exact) for each in over]
    return _envelope([each.layout for each in over], lines)


def _line(partition: Partition, work: Work) -> tuple[float, float]:
    """Seconds on the wire as a line in tokens, through two batches that need no padding."""
    batch = partition.slice.chips
    one, two = (float(partition.communication(work, size)[0]) for size in (batch, 2 * batch))
    return 2 * one - two, (two - one) / batch


def _envelope(names: list[str], lines: list[tuple[float, float]]) -> list[Crossover]:
    """Where the lower envelope of lines ``constant + slope * tokens`` has its corners, for tokens above 0."""
    found: list[Crossover] = []
    tokens, now = 0.0, min(range(len(lines)), key=lambda i: lines[i])
    while True:
        constant, slope = lines[now]
        corners = [
            ((lines[i][0] - constant) / (slope - lines[i][1]), lines[i][1], i)
            for i in range(len(lines))
            if lines[i][1] < slope
        ]
        if not corners:
            return found
        tokens, _, after = min((max(corner, tokens), steep, i) for corner, steep, i in corners)
        found.append(Crossover(tokens, names[now], names[after]))
        now = after


def _searched(
    over: list[Partition], chip: Chip, work: Work, efficiency: Efficiency, overlap: float, most: int
) -> list[Crossover]:
    """Changes of the fastest on a grid of batches, each then bisected."""
    chips = over[0].slice.chips

    def fastest(batches: Any) -> list[int]:
        seconds = [times(each.costs(work, batches), chip, work, efficiency, overlap).total for each in over]
        return [int(i) for i in np.argmin(seconds, axis=0)]

    largest = max(1, most // work.length)
    grid = np.unique(np.geomspace(1, largest, 256).astype(np.int64))
    grid = np.unique(np.where(grid < chips, grid, grid // chips * chips))
    winners = fastest(grid)
    found = []
    for low, high, before, after in zip(grid, grid[1:], winners, winners[1:], strict=False):
        step = 1 if low < chips else chips
        while before != after and high - low > step:
            middle = low + (high - low) // (2 * step) * step
            low, high = (middle, high) if fastest(np.array([middle]))[0] == before else (low, middle)
        if before != after:
            found.append(Crossover(float(high * work.length), over[before].layout, over[after].layout))
    return found
