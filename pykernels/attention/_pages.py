"""Which pages of a pool each sequence has, and which are free: a cache's bookkeeping, without what it keeps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

_NONE = np.empty(0, np.int64)


class Growth(NamedTuple):
    """What an append needs, worked out before anything changes."""

    slots: Array
    tokens: int  # of each slot
    entries: tuple[Array, Array]  # slots and columns of the table that get new pages
    pages: Array  # these pages
    sources: Array  # pages that other sequences have too, to be copied
    copies: Array  # new pages, to copy them to
    filled: int  # rows that a copy needs
    where: Array  # (2, n, tokens): pages and rows of the tokens


class PageTable:
    """Page numbers and lengths of sequences, each in a slot of its own.

    A page may belong to several sequences, which then agree in what they have of it; the first append that
    would write to a page that others have takes a copy in its place.
    """

    def __init__(self, pages: int, page_size: int, longest: int, slots: int | None) -> None:
        """`longest`: pages that a sequence may have; `slots`: how many sequences there may be, None for any number."""
        self.total, self.page_size, self.longest, self.slots = pages, page_size, longest, slots
        self.lengths = np.zeros(slots or 8, np.int64)
        self.table = np.zeros((slots or 8, 1), np.int64)
        self.changed = np.ones(slots or 8, bool)  # since a mirror of the table was last told
        self._slot_of: dict[int, int] = {}
        self._unused = list(range(len(self.lengths)))[::-1]
        self._next = 0
        self._users = np.zeros(pages, np.int64)
        self._free = np.arange(pages)[::-1].copy()  # a stack
        self.free = pages  # its height
        self.version = 0  # another one whenever tokens are somewhere else than before

    def sequences(self) -> list[int]:
        return list(self._slot_of)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._slot_of

    def slot_of(self, sequence: int) -> int:
        try:
            return self._slot_of[sequence]
        except KeyError:
            raise ValueError(f"sequence {sequence} is not in the cache: it was never made, or freed") from None

    def slots_of(self, sequences: Array) -> Array:
        return np.array([self.slot_of(sequence) for sequence in sequences.tolist()], np.int64)

    def add(self, like: int | None = None) -> int:
        """The number of a new sequence, empty or with all that the slot `like` has."""
        if not self._unused:
            if self.slots is not None:
                raise MemoryError(f"the cache has {self.slots} sequences, as many as it can hold: free one first")
            self._reshape(2 * len(self.lengths), self.table.shape[1])
        slot, sequence = self._unused.pop(), self._next
        self.lengths[slot] = 0
        if like is not None:
            pages = self._pages(like)
            self._users[pages] += 1
            self.table[slot, : len(pages)] = pages
            self.lengths[slot] = self.lengths[like]
            self.changed[slot] = True
        self._slot_of[sequence] = slot
        self._next += 1
        return sequence

    def remove(self, sequence: int) -> None:
        slot = self._slot_of[sequence]
        self.truncate(slot, 0)
        del self._slot_of[sequence]
        self._unused.append(slot)

    def truncate(self, slot: int, length: int) -> None:
        pages = self._pages(slot)[-(-length // self.page_size) :]
        self._users[pages] -= 1
        released = pages[self._users[pages] == 0]
        self._free[self.free : self.free + len(released)] = released[::-1]
        self.free += len(released)
        self.lengths[slot] = length
        self.version += 1

    def located(self, slots: Array, positions: Array) -> Array:
        """Pages and rows (2, n, T) of tokens of slots, at positions (n, T)."""
        return np.stack([self.table[slots[:, None], positions // self.page_size], positions % self.page_size])

    def plan(self, slots: Array, tokens: int) -> Growth:
        """How each of the `slots`, all distinct, would get `tokens`, at least one, more."""
        size, before = self.page_size, self.lengths[slots]
        filled = before % size
        if filled.min() > 0 and filled.max() + tokens <= size:
            last = self.table[slots, before // size]
            if self._users[last].max() == 1:
                return self._plan_within(slots, tokens, last, filled)
        held, needed = (before + size - 1) // size, (before + tokens + size - 1) // size
        if needed.max() > self.longest:
            raise MemoryError(
                f"a sequence of {before[needed.argmax()]} tokens cannot get {tokens} more: "
                f"the cache has room for {self.longest * size} of each"
            )
        last = self.table[slots, np.maximum(held - 1, 0)]
        copied = self._to_copy(last, filled > 0)
        first = held - copied
        fresh = needed - first
        total = int(fresh.sum())
        if total > self.free:
            raise MemoryError(
                f"{len(slots)} sequences with {tokens} more tokens each need {total} pages of {size} tokens: "
                f"{self.free} are free"
            )
        pages = self._free[self.free - total : self.free][::-1].copy()
        start = np.cumsum(fresh) - fresh
        owner = np.repeat(np.arange(len(slots)), fresh)
        position = before[:, None] + np.arange(tokens)
        column = position // size
        kept = column < first[:, None]
        choice = np.where(kept, np.arange(len(slots))[:, None], len(slots) + (start - first)[:, None] + column)
        return Growth(
            slots=slots,
            tokens=tokens,
            entries=(slots[owner], first[owner] + np.arange(total) - start[owner]),
            pages=pages,
            sources=last[copied],
            copies=pages[start[copied]],
            filled=int(filled[copied].max(initial=0)),
            where=np.stack([np.concatenate([last, pages])[choice], position % size]),
        )

    def _plan_within(self, slots: Array, tokens: int, last: Array, filled: Array) -> Growth:
        """The plan where all tokens go to the last pages, which no other sequence has."""
        rows = filled[:, None] + np.arange(tokens)
        where = np.stack([np.broadcast_to(last[:, None], rows.shape), rows])
        return Growth(slots, tokens, (_NONE, _NONE), _NONE, _NONE, _NONE, 0, where)

    def grow(self, growth: Growth) -> None:
        """Carry out a plan, the table being as it was when the plan was made."""
        slots, columns = growth.entries
        if len(slots):
            width = int(columns.max()) + 1
            if width > self.table.shape[1]:
                self._reshape(len(self.lengths), min(max(width, 2 * self.table.shape[1]), self.longest))
            np.subtract.at(self._users, growth.sources, 1)
            self._users[growth.pages] = 1
            self.free -= len(growth.pages)
            self.table[slots, columns] = growth.pages
            self.changed[slots] = True
        self.lengths[growth.slots] += growth.tokens
        self.version += 1

    def _pages(self, slot: int) -> Array:
        pages: Array = self.table[slot, : -(-int(self.lengths[slot]) // self.page_size)]
        return pages

    def _to_copy(self, last: Array, partly: Array) -> Array:
        """Which sequences need a copy of their `last` page, `partly` filled; the last one to have a page keeps it."""
        copied: Array = partly & (self._users[last] > 1)
        users: dict[int, int] = {}
        for i in np.flatnonzero(copied).tolist():
            page = int(last[i])
            left = users.get(page, int(self._users[page]))
            copied[i] = left > 1
            users[page] = left - 1
        return copied

    def _reshape(self, slots: int, width: int) -> None:
        had = len(self.lengths)
        table, lengths, changed = np.zeros((slots, width), np.int64), np.zeros(slots, np.int64), np.ones(slots, bool)
        table[:had, : self.table.shape[1]] = self.table
        lengths[:had] = self.lengths
        self.table, self.lengths, self.changed = table, lengths, changed
        self._unused[:0] = range(had, slots)[::-1]
