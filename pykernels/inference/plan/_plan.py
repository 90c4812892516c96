"""plan."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from ... import _options
from . import volumes
from ._chip import Chip
from ._costs import Partition, Work
from ._dtypes import CACHES, WEIGHTS
from ._efficiency import Efficiency
from ._model import Model
from ._numbers import positive
from ._result import Result
from ._slice import Slice

_NEEDS = {"ws1d": "", "ws2d": "x", "wgx": "x", "wgxy": "y", "wgxyz": "z"}  # axes without which it is the one before


def plan(
    model: Model | str,
    chip: Chip | str,
    chips: int | Slice,
    *,
    batch: int,
    context: int,
    phase: str = "decode",
    new_tokens: int = 1,
    cached: int = 0,
    weights: str = "bf16",
    cache: str = "bf16",
    compute: str = "bf16",
    efficiency: float | Efficiency = 1.0,
    overlap: float = 0.0,
    links: str = "pooled",
    every_torus: bool = False,
) -> list[Result]:
    """Every way to lay out a decoder on chips, the fastest first.

    The model of "Efficiently Scaling Transformer Inference" (arXiv 2211.05102). A lower bound by nature: rates are what
    data sheets promise, activations stay on the chip, and normalisation, softmax, sampling and the embedding take no
    time. It ranks; what programs take is longer, see `efficiency`.

    Parameters
    ----------
    model, chip : or their names, of `Model.names()` and `Chip.names()`
    chips : how many, of which every factorisation X x Y x Z is tried; or a Slice, which is then the only one
    batch : sequences
    context : tokens of each sequence: those that a prefill ends with, those in the cache when a decode starts
    phase : "prefill", one pass over the context, or "decode", a token of each sequence a pass
    new_tokens : how many passes a decode makes; times are of the average one, memory of the last
    cached : how many tokens of a prefill's context are in the cache before it
    weights, cache : "bf16", "int8" or "fp8", in memory (and gathered between chips)
    compute : "bf16", or "int8" or "fp8" if activations are quantized too: the rate of the products with weights
    efficiency : the fraction of the chip's rates that is reached, or an `Efficiency`
    overlap : the fraction of communication, or of computing where that is shorter, that is hidden behind the other
    links : "pooled" or "axes", see `Slice`; of a given Slice its own
    every_torus : whether to keep all factorisations of a layout and attention, or the best of them

    Returns
    -------
    A list of `Result`, one for each feedforward layout of "ws1d", "ws2d" (weight-stationary), "wgx", "wgxy", "wgxyz"
    (weight-gathered) and each of attention over "heads" and "batch": those that fit by time, then the others by bytes.

    Raises ValueError if none fits, with the reason and the nearest that do; ValueError or TypeError for unknown names
    (the known ones are listed), numbers that are not positive, and fractions above 1. Heads, dimensions and batches
    that the chips do not divide are padded, and `notes` say so.

    Examples
    --------
    >>> from pykernels.inference.plan import plan
    >>> best = plan("palm-540b", "tpu-v4", 64, batch=512, context=2048)[0]
    >>> best.layout, best.attention, best.limit
    ('ws2d', 'batch', 'compute')
    """
    model, chip = named(model, chip)
    work = checked(Work(phase, context, new_tokens, cached, weights, cache, compute))
    batch = _options.integer("batch", batch, 1)
    efficiency, overlap = Efficiency.of(efficiency), positive("overlap", overlap, zero=True, most=1.0)
    results = [
        Result.of(partition, work, chip, batch, efficiency, overlap)
        for partition in partitions(model, slices(chip, chips, links))
    ]
    results.sort(key=lambda result: (not result.fits, result.seconds if result.fits else result.bytes))
    if not results[0].fits:
        from ._nearest import explain

        raise ValueError(explain(results[0]))
    if every_torus:
        return results
    best: dict[tuple[str, str], Result] = {}
    for result in results:
        best.setdefault((result.layout, result.attention), result)
    return list(best.values())


def named(model: Model | str, chip: Chip | str) -> tuple[Model, Chip]:
    """A model and a chip, given as such or by name."""
    model = Model.named(model) if isinstance(model, str) else model
    chip = Chip.named(chip) if isinstance(chip, str) else chip
    for name, value, kind in (("model", model, Model), ("chip", chip, Chip)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} is a {type(value).__name__}: expected a {kind.__name__} or its name")
    return model, chip


def checked(work: Work) -> Work:
    """`work`, if it can be."""
    _options.choice("phase", work.phase, ("prefill", "decode"))
    for name, least in (("context", 1), ("new_tokens", 1), ("cached", 0)):
        _options.integer(name, getattr(work, name), least)
    if work.cached and work.phase == "decode":
        raise ValueError(f"cached={work.cached}: of a decode all of the context is; expected 0")
    if work.cached >= work.context:
        raise ValueError(f"cached={work.cached}: expected fewer than context={work.context}")
    for name, accepted in (("weights", WEIGHTS), ("cache", CACHES), ("compute", WEIGHTS)):
        _options.choice(name, getattr(work, name), accepted)
    return work


def slices(chip: Chip, chips: int | Slice, links: str = "pooled") -> list[Slice]:
    """The slice given, or all factorisations of a number of chips, the most cubic first."""
    if isinstance(chips, Slice):
        return [chips]
    return sorted(Slice.all(chip, chips, links=links), key=lambda each: (sum(each.shape), each.shape))


def partitions(
    model: Model, over: Iterable[Slice], layout: str | None = None, attention: str | None = None
) -> Iterator[Partition]:
    """Every layout and attention on every slice, or those of a name; of those alike for want of an axis, one."""
    for slice, each, way in itertools.product(over, volumes.LAYOUTS, volumes.ATTENTION):
        new = layout == each or (layout is None and all(slice.size(axis) > 1 for axis in _NEEDS[each]))
        new_way = attention == way or (attention is None and (slice.chips > 1 or way == "heads"))
        if new and new_way:
            yield Partition(model, slice, each, way)
