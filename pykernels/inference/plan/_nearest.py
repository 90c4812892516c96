"""Why nothing fits, and what is nearest that does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from ._chip import Chip
from ._costs import Work
from ._model import Model
from ._plan import partitions, slices
from ._result import Result, longest
from ._slice import Slice

_MOST_CHIPS = 1 << 14
_GIB = 2.0**30


def explain(least: Result) -> str:
    """The message for `least`, of the results of a plan the one that takes the fewest bytes and still does not fit."""
    model, chip, work, batch, held = least.model, least.chip, least.work, least.batch, least.held
    near = list(_nearest(model, chip, work, batch, least.partition.slice))
    place = f"{least.layout} with attention over {least.attention}"
    return (
        f"{model.name} does not fit {least.chips} x {chip.name} in any layout: with {work.weights} weights, "
        f"{work.cache} cache, batch={batch} and context={work.context}, {place} takes "
        f"{least.bytes / _GIB:.4g} GiB of the {chip.memory / _GIB:.4g} of a chip (weights {held.weights / _GIB:.4g}, "
        f"cache {held.cache / _GIB:.4g}, activations {held.activations / _GIB:.4g}); "
        + (f"it fits with {', or with '.join(near)}" if near else "nothing near it fits either")
    )


def _nearest(model: Model, chip: Chip, work: Work, batch: int, slice: Slice) -> Iterator[str]:
    """What fits and differs in one respect: chips, types, batch, context."""
    here = slices(chip, slice.chips, slice.links)

    def fits(work: Work, batch: int, over: list[Slice] = here) -> bool:
        return any(partition.held(work, batch).total <= chip.memory for partition in partitions(model, over))

    chips = 1 << slice.chips.bit_length()
    while chips <= _MOST_CHIPS:
        if fits(work, batch, slices(chip, chips, slice.links)):
            yield f"{chips} chips"
            break
        chips *= 2
    narrow = replace(work, weights="int8"), replace(work, cache="int8"), replace(work, weights="int8", cache="int8")
    for other, name in zip(narrow, ("weights", "cache", "weights and cache"), strict=True):
        if fits(other, batch):
            yield f"int8 {name}"
            break
    if fits(work, 1):
        yield f"batch={_largest(lambda size: fits(work, size), batch)}"
    tokens = [longest(model, work, partition.held(work, batch), chip.memory) for partition in partitions(model, here)]
    most = max(math.inf if each is None else each for each in tokens) - (work.held - work.context)
    if most > work.cached:
        yield f"context={most:.0f}"


def _largest(holds: Callable[[int], bool], below: int) -> int:
    """The largest number below `below` that `holds`, given that 1 does and that smaller ones do where larger do."""
    low, high = 1, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
