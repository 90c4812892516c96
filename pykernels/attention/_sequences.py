"""Sequences of a cache: their numbers, their lengths and the pages that they share."""

from __future__ import annotations

from numbers import Integral
from threading import Lock
from typing import Any

import numpy as np

from .. import _options
from ._opaque import opaque
from ._pages import PageTable

Array = np.ndarray[Any, Any]


class Sequences:
    """What a cache knows of its sequences without what it keeps of them; see `KVCache`."""

    def __init__(self, pages: PageTable) -> None:
        self._pages = pages
        self._lock = Lock()

    def __contains__(self, sequence: object) -> bool:
        return isinstance(sequence, Integral) and int(sequence) in self._pages

    @property
    def page_size(self) -> int:
        return self._pages.page_size

    @property
    def num_pages(self) -> int:
        return self._pages.total

    @property
    def free_pages(self) -> int:
        return self._pages.free

    @property
    def sequences(self) -> list[int]:
        with self._lock:
            return self._pages.sequences()

    @opaque
    def new(self) -> int:
        """The number of a new, empty sequence. MemoryError if a contiguous cache has `max_sequences` already."""
        with self._lock:
            return self._pages.add()

    @opaque
    def fork(self, sequence: int) -> int:
        """The number of a new sequence that has what `sequence` has.

        The two share their pages, in any number of generations. Only a last page that is partly filled is copied, by
        the first append to either. MemoryError if a contiguous cache has `max_sequences` sequences.
        """
        with self._lock:
            return self._pages.add(like=self._slot(sequence))

    @opaque
    def free(self, sequence: int) -> None:
        """Forget a sequence; pages that no other sequence has are free then."""
        with self._lock:
            self._slot(sequence)
            self._pages.remove(int(sequence))

    @opaque
    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` tokens of a sequence, 0 to as many as it has."""
        with self._lock:
            slot = self._slot(sequence)
            self._pages.truncate(slot, _options.integer("length", length, 0, int(self._pages.lengths[slot])))

    @opaque
    def length(self, sequence: int) -> int:
        """How many tokens a sequence has."""
        with self._lock:
            return int(self._pages.lengths[self._slot(sequence)])

    @opaque
    def lengths(self, sequences: Any) -> Array:
        """How many tokens sequences have, an int64 array."""
        given = _options.integers("sequences", sequences)
        with self._lock:
            lengths: Array = self._pages.lengths[self._pages.slots_of(given)]
        return lengths

    def _slot(self, sequence: Any) -> int:
        if not isinstance(sequence, Integral) or isinstance(sequence, bool):
            raise TypeError(f"sequence={sequence!r}: expected the number of a sequence")
        return self._pages.slot_of(int(sequence))
