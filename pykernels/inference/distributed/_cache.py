"""ShardedCache."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import _options
from ..._arrays import Array
from ...attention import KVCache
from .._attend import Kept


class ShardedCache:
    """Keys and values of sequences that processes share among them; made by `ShardedDecoder.cache`.

    Each sequence is kept by one owner: a process, or the processes that have different heads of it. A new sequence
    goes to an owner that has fewest, a fork stays where its parent is. Methods are those of `KVCache`, and all
    processes must call them in the same order: nothing is sent.

    Attributes
    ----------
    local : the `KVCache` of what this process keeps; only the decoder may change it
    owner, owners : the number of this process among owners, and how many there are
    sequences : the numbers of all sequences, ascending
    nbytes : bytes that this process keeps
    """

    def __init__(self, local: KVCache, owner: int, owners: int, max_sequences: int | None) -> None:
        """`max_sequences` of each owner, or None for any number."""
        self.local, self.owner, self.owners = local, owner, owners
        self._most = max_sequences
        self._homes: dict[int, tuple[int, int]] = {}  # the owner, and the number in its cache if that is this process
        self._lengths: dict[int, int] = {}
        self._next = 0

    def __contains__(self, sequence: object) -> bool:
        return sequence in self._homes

    def __repr__(self) -> str:
        return f"ShardedCache of {len(self._homes)} sequences, owner {self.owner} of {self.owners}: {self.local!r}"

    @property
    def sequences(self) -> list[int]:
        return sorted(self._homes)

    @property
    def nbytes(self) -> int:
        return self.local.nbytes

    def new(self) -> int:
        """The number of a new, empty sequence. MemoryError if a contiguous cache has `max_sequences` already."""
        held = np.bincount([owner for owner, _ in self._homes.values()], minlength=self.owners)
        return self._add(int(held.argmin()), 0, None)

    def fork(self, sequence: int) -> int:
        """The number of a new sequence that has what `sequence` has, and the same owner."""
        owner, number = self._home(sequence)
        return self._add(owner, self._lengths[int(sequence)], number)

    def free(self, sequence: int) -> None:
        """Forget a sequence."""
        owner, number = self._home(sequence)
        if owner == self.owner:
            self.local.free(number)
        del self._homes[int(sequence)], self._lengths[int(sequence)]

    def truncate(self, sequence: int, length: int) -> None:
        """Forget all but the first `length` tokens of a sequence, 0 to as many as it has."""
        owner, number = self._home(sequence)
        kept = _options.integer("length", length, 0, self._lengths[int(sequence)])
        if owner == self.owner:
            self.local.truncate(number, kept)
        self._lengths[int(sequence)] = kept

    def length(self, sequence: int) -> int:
        """How many tokens a sequence has."""
        self._home(sequence)
        return self._lengths[int(sequence)]

    def lengths(self, sequences: Any) -> Array:
        """How many tokens sequences have, an int64 array."""
        given = _options.integers("sequences", sequences).tolist()
        return np.array([self.length(each) for each in given], np.int64)

    def owners_of(self, sequences: Array) -> Array:
        return np.array([self._home(each)[0] for each in sequences.tolist()], np.int64)

    def grow(self, sequences: Array, tokens: int) -> Kept:
        """Room for T more tokens in each of n distinct sequences; what is kept here is in the order of `sequences`.

        MemoryError where an owner has no room: nothing has changed there.
        """
        given = sequences.tolist()
        if len(set(given)) < len(given):
            raise ValueError(f"sequences={given}: expected distinct numbers")
        homes = [self._home(each) for each in given]
        own = np.array([number for owner, number in homes if owner == self.owner], np.int64)
        kept = Kept(self.local, self.local.grow(own, tokens), own)
        for each in given:
            self._lengths[each] += tokens
        return kept

    def _add(self, owner: int, length: int, like: int | None) -> int:
        held = sum(each == owner for each, _ in self._homes.values())
        if self._most is not None and held >= self._most:
            raise MemoryError(f"owner {owner} has {held} sequences: expected fewer than {self._most}")
        local = -1
        if owner == self.owner:
            local = self.local.new() if like is None else self.local.fork(like)
        number, self._next = self._next, self._next + 1
        self._homes[number], self._lengths[number] = (owner, local), length
        return number

    def _home(self, sequence: Any) -> tuple[int, int]:
        number = _options.integer("sequence", sequence, 0)
        if number not in self._homes:
            raise ValueError(f"sequence={number}: expected one that is in the cache")
        return self._homes[number]


def grow(cache: KVCache | ShardedCache, sequences: Array, tokens: int) -> Kept:
    """As `ShardedCache.grow`, of either kind of cache."""
    if isinstance(cache, ShardedCache):
        return cache.grow(sequences, tokens)
    return Kept(cache, cache.grow(sequences, tokens), sequences)


def owners_of(cache: KVCache | ShardedCache, sequences: Array) -> Array:
    return cache.owners_of(sequences) if isinstance(cache, ShardedCache) else np.zeros(len(sequences), np.int64)
