"""Keys and values where the chips keep them."""

from __future__ import annotations

import numpy as np

from ._mesh import Mesh
from ._shards import Array, Sharded


class Cache:
    """Keys and values (B, S, heads, D) of one block, each chip's in its own arrays; empty at first.

    Blocks may run in turn with one cache in different layouts, if these place it alike: over batch, all of them do.
    """

    def __init__(self) -> None:
        self._tensors: tuple[Sharded, Sharded] | None = None

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return 0 if self._tensors is None else self._tensors[0].shape[1]

    @property
    def nbytes(self) -> Array:
        """Bytes that each chip holds."""
        if self._tensors is None:
            return np.zeros(0, np.int64)
        k, v = self._tensors
        return np.array([a.nbytes + b.nbytes for a, b in zip(k.shards, v.shards, strict=True)])

    def append(self, mesh: Mesh, *new: Sharded) -> tuple[Sharded, Sharded]:
        """The keys and values so far, with those of `new`; ValueError for another placement than the cache's."""
        if self._tensors is not None:
            for had, more in zip(self._tensors, new, strict=True):
                if (had.spec, had.sharing, had.shape[0]) != (more.spec, more.sharing, more.shape[0]):
                    raise ValueError(
                        f"cache of {had.shape[0]} sequences is split as {had.spec}:"
                        f" expected {more.shape[0]} split as {more.spec}"
                    )
            pairs = zip(self._tensors, new, strict=True)
            new = tuple(mesh.each(_follow, *pair, spec=pair[1].spec, sharing=pair[1].sharing) for pair in pairs)
        self._tensors = (new[0], new[1])
        return self._tensors


def _follow(had: Array, more: Array) -> Array:
    return np.concatenate([had, more], 1)
