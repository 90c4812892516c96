"""Checks that decoders of one process and of several share."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._options import integers
from ._config import Config

Array = np.ndarray[Any, Any]


def check_range(config: Config, low: int, high: int) -> None:
    """Refuse tokens, from `low` to `high`, that are not in the vocabulary."""
    if low < 0 or high >= config.vocab:
        raise ValueError(f"tokens has {low if low < 0 else high}: expected integers from 0 to {config.vocab - 1}")


def check_length(config: Config, length: int) -> None:
    if length > config.max_length:
        raise ValueError(f"tokens would make a sequence of {length}: expected at most max_length={config.max_length}")


def to_append(
    config: Config, shape: tuple[int, ...], cache: Any, sequences: Any, last_only: bool
) -> tuple[Array, Array]:
    """The numbers of sequences, and their lengths before they get tokens of a shape (n, T)."""
    n, length = shape
    if last_only and not length:
        raise ValueError(f"tokens has shape {shape}: expected at least one token with last_only")
    numbers = integers("sequences", sequences)
    if len(numbers) != n:
        raise ValueError(f"sequences has shape {numbers.shape}: expected ({n},), as tokens")
    before: Array = cache.lengths(numbers)
    check_length(config, int(before.max(initial=0)) + length)
    return numbers, before
