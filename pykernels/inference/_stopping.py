"""Token ids that come from users, and those that end a generation."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np

from .. import _options

Array = np.ndarray[Any, Any]


def token_ids(name: str, tokens: Any, vocab: int) -> Array:
    """`tokens` as a vector of int64, at least one, each below `vocab`."""
    ids = _options.integers(name, tokens)
    if len(ids) == 0:
        raise ValueError(f"{name} is empty: expected at least one token")
    if ids.min() < 0 or ids.max() >= vocab:
        wrong = ids[(ids < 0) | (ids >= vocab)][0]
        raise ValueError(f"{name} has token {wrong}: expected 0 to {vocab - 1}")
    return ids


class Stopping:
    """What a generation ends with: any of some sequences of tokens."""

    def __init__(self, stop: Iterable[Any], vocab: int) -> None:
        """`stop`: token ids, and sequences of token ids."""
        if isinstance(stop, str | bytes) or not isinstance(stop, Iterable):
            raise TypeError(f"stop={stop!r}: expected token ids, or sequences of token ids")
        self._endings = [
            token_ids(f"stop[{i}]", [item] if isinstance(item, Integral) else item, vocab).tolist()
            for i, item in enumerate(stop)
        ]

    def reached(self, tokens: list[int]) -> bool:
        return any(tokens[-len(ending) :] == ending for ending in self._endings)
