"""pareto."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ... import _options
from ._chip import Chip
from ._costs import Partition, Work
from ._efficiency import Efficiency, cost, times
from ._model import Model
from ._numbers import positive
from ._plan import checked, named, partitions, slices
from ._result import Result
from ._slice import Slice

_BATCHES = tuple(2**i for i in range(13))


def pareto(
    model: Model | str,
    chip: Chip | str,
    chips: int | Slice | Sequence[int | Slice],
    *,
    context: int,
    phase: str = "decode",
    batches: int | Iterable[int] = _BATCHES,
    new_tokens: int = 1,
    cached: int = 0,
    weights: str | Sequence[str] = ("bf16", "int8"),
    cache: str | Sequence[str] = "bf16",
    compute: str = "bf16",
    efficiency: float | Efficiency = 1.0,
    overlap: float = 0.0,
    links: str = "pooled",
) -> list[Result]:
    """The frontier of latency against cost: what nothing that fits beats in one and equals or beats in the other.

    Over every batch, number of chips, factorisation, layout, attention and type of numbers. `batches`, `chips`,
    `weights` and `cache` are one or several; the other parameters are those of `plan`.

    Returns
    -------
    A list of `Result` by `seconds`, ascending, of which the `cost` (chip-seconds a token) descends; of several that are
    equal in both, one.

    Raises as `plan` does; ValueError if nothing fits.

    Examples
    --------
    >>> from pykernels.inference.plan import pareto
    >>> frontier = pareto("palm-540b", "tpu-v4", (64, 128), context=2048)
    >>> fastest, cheapest = frontier[0], frontier[-1]
    >>> (fastest.chips, fastest.batch, fastest.work.weights), (cheapest.chips, cheapest.batch)
    ((128, 1, 'int8'), (64, 4096))
    """
    model, chip = named(model, chip)
    sizes = np.array(
        [_options.integer("batches", batch, 1) for batch in _several("batches", batches, int | np.integer)], np.int64
    )
    if not sizes.size:
        raise ValueError("batches is empty: expected at least one integer")
    efficiency, overlap = Efficiency.of(efficiency), positive("overlap", overlap, zero=True, most=1.0)
    counts = _several("chips", chips, int | np.integer | Slice)
    works = [
        checked(Work(phase, context, new_tokens, cached, held, kept, compute))
        for held in _several("weights", weights, str)
        for kept in _several("cache", cache, str)
    ]
    tried = [
        (partition, work)
        for count in counts
        for partition in partitions(model, slices(chip, count, links))
        for work in works
    ]
    if not tried:
        raise ValueError("chips, weights or cache is empty: expected at least one of each")
    seconds, costs, fits = _evaluate(tried, chip, sizes, efficiency, overlap)

    def result(index: int) -> Result:
        partition, work = tried[index // sizes.size]
        return Result.of(partition, work, chip, int(sizes[index % sizes.size]), efficiency, overlap)

    if not fits.any():
        from ._nearest import explain

        smallest = int(sizes.argmin())
        raise ValueError(
            explain(min((result(i * sizes.size + smallest) for i in range(len(tried))), key=lambda each: each.bytes))
        )
    return [result(index) for index in frontier(seconds, costs, fits)]


def _evaluate(
    tried: list[tuple[Partition, Work]], chip: Chip, sizes: Any, efficiency: Efficiency, overlap: float
) -> tuple[Any, Any, Any]:
    """Seconds, cost and whether it fits, of every batch for each of `tried`, flat."""
    seconds = np.empty((len(tried), sizes.size))
    costs, fits = np.empty_like(seconds), np.empty(seconds.shape, bool)
    for i, (partition, work) in enumerate(tried):
        seconds[i] = times(partition.costs(work, sizes), chip, work, efficiency, overlap).total
        costs[i] = cost(partition.slice.chips, seconds[i], sizes, work)
        fits[i] = partition.held(work, sizes).total <= chip.memory
    return seconds.ravel(), costs.ravel(), fits.ravel()


def frontier(seconds: Any, costs: Any, fits: Any) -> list[int]:
    """Indices of those that fit and that none dominates, by ascending seconds."""
    order = np.lexsort((costs, seconds))
    order = order[fits[order]]
    least = np.minimum.accumulate(costs[order])
    first = np.append(True, least[1:] < least[:-1])
    return [int(i) for i in order[first]]


def _several(name: str, value: Any, one: Any) -> list[Any]:
    if isinstance(value, one):
        return [value]
    if not isinstance(value, Iterable):
        raise TypeError(f"{name}={value!r}: expected one or several")
    return list(value)
