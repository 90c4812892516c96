"""Grown."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._pages import PageTable
from ._pools import Place

Array = np.ndarray[Any, Any]


class Grown:
    """The last tokens of sequences of a cache, whose keys and values are to be written; made by `KVCache.grow`.

    Attributes
    ----------
    sequences : (n,) int64
    positions : (n, T) int64, of the tokens in their sequences
    """

    def __init__(self, pages: PageTable, place: Place, sequences: Array, first: Array, tokens: int) -> None:
        """Of sequences in `pages` that have as many `tokens` from the `first` of each on."""
        self.sequences = sequences
        self.positions = first[:, None] + np.arange(tokens)
        self._pages, self._place = pages, place
        self._version = -1
        self._where: Any = None

    def __repr__(self) -> str:
        n, tokens = self.positions.shape
        return f"Grown: {n} sequences by {tokens} tokens"

    def of(self, pages: PageTable) -> bool:
        return self._pages is pages

    def where(self) -> Any:
        """Pages and rows (2, n, T) where launchers take them; all layers ask for them in turn."""
        pages = self._pages
        if self._version != pages.version:
            slots = pages.slots_of(self.sequences)
            ends = self.positions[:, -1] + 1
            short = np.flatnonzero(pages.lengths[slots] < ends)
            if len(short):
                i = int(short[0])
                raise ValueError(
                    f"grown is of sequence {self.sequences[i]} with {ends[i]} tokens, which has "
                    f"{pages.lengths[slots[i]]} now: it was truncated"
                )
            self._where = self._place.sent(pages.located(slots, self.positions))
            self._version = pages.version
        return self._where
