"""longest_context."""

from __future__ import annotations

from typing import Any

from ... import _options
from . import volumes
from ._chip import Chip
from ._costs import Work
from ._model import Model
from ._numbers import positive
from ._plan import checked, named, partitions, slices
from ._result import longest
from ._slice import Slice


def longest_context(
    model: Model | str,
    chip: Chip | str,
    chips: int | Slice,
    *,
    batch: int,
    layout: str | None = None,
    attention: str | None = None,
    phase: str = "decode",
    weights: str = "bf16",
    cache: str = "bf16",
    share: float | None = None,
) -> int | None:
    """The most tokens that each of `batch` sequences can have, where there is the most room for them.

    Parameters
    ----------
    model, chip, chips, batch, phase, weights, cache : as of `plan`
    layout, attention : as of `plan`; None for whichever have the most room
    share : the fraction of memory that the cache has, whatever else there is; None for what weights and activations
        leave. With 0.3 of 64 TPU v4, "ws2d" and PaLM 540B this is table 1 of the paper:
        ``0.3 memory / (layers 2 H_kv d 2 bytes * sequences on a chip)``.

    Returns
    -------
    Tokens, 0 if not one fits; None if windows bound the cache of every layer, and it fits.

    Examples
    --------
    >>> from pykernels.inference.plan import longest_context
    >>> for attention in ("heads", "batch"):  # table 1: 660 and 43,000
    ...     longest_context("palm-540b", "tpu-v4", 64, batch=128, layout="ws2d", attention=attention, share=0.3)
    666
    42653
    """
    model, chip = named(model, chip)
    work = checked(Work(phase, 1, weights=weights, cache=cache))
    batch = _options.integer("batch", batch, 1)
    if layout is not None:
        _options.choice("layout", layout, volumes.LAYOUTS)
    if attention is not None:
        _options.choice("attention", attention, volumes.ATTENTION)
    memory = chip.memory if share is None else chip.memory * positive("share", share, most=1.0)
    most: Any = 0
    for partition in partitions(model, slices(chip, chips), layout, attention):
        held = partition.held(work, batch)
        if share is not None:
            held = held._replace(weights=0, activations=0, activation_token=0)
        tokens = longest(model, work, held, memory)
        if tokens is None:
            return None
        most = max(most, tokens)
    return int(most)
