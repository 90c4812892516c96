"""Attention in a torus: from blocks of projected columns to blocks of attended columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ..._arrays import Array
from .._attend import Attention
from .._config import Config
from ..plan.volumes import Layout
from ._placement import Placement
from ._torus import Torus

Tensor = torch.Tensor


class Rows(NamedTuple):
    """Sequences of a batch in the order of the processes that keep them: `size` slots for each, some of them empty."""

    slots: Array  # where the batch's sequences are
    batch: Array  # which of the batch's sequences are in the slots, -1 for none
    size: int

    @staticmethod
    def of(owners: Array, count: int) -> Rows:
        """Of sequences kept by `owners`, numbers below `count`."""
        held = np.bincount(owners, minlength=count)
        size = int(held.max(initial=0))
        order = np.argsort(owners, kind="stable")
        slots = np.empty(len(owners), np.int64)
        starts = np.cumsum(held) - held
        slots[order] = owners[order] * size + np.arange(len(owners)) - starts[owners[order]]
        batch = np.full(count * size, -1)
        batch[slots] = np.arange(len(owners))
        return Rows(slots, batch, size)

    def own(self, owner: int) -> Array:
        """Which of the batch's sequences a process keeps, in the order of its slots."""
        mine = self.batch[owner * self.size : (owner + 1) * self.size]
        return mine[mine >= 0]


@dataclass(frozen=True)
class Distribution:
    """Where heads and sequences are."""

    config: Config
    torus: Torus
    layout: Layout
    placement: Placement
    attention: str

    @property
    def axes(self) -> str:
        """The axes over which sequences are split among caches."""
        return "xyz" if self.attention == "batch" else self.layout.gathered

    @cached_property
    def gathers(self) -> bool:
        """Whether weights are gathered, and the sequences split outside of attention too."""
        return self.torus.extent(self.layout.gathered) > 1

    @cached_property
    def inner(self) -> str:
        """The axes over which columns are split, outside of attention."""
        return self.layout.spread + self.layout.contracted

    @cached_property
    def sharing(self) -> int:
        """How many processes have a part each of one key head; 0 where it takes no exchange."""
        parts = self.torus.extent(self.inner) // self.placement.sizes.kv_heads
        return parts if self.attention == "heads" and parts > 1 else 0

    @cached_property
    def local(self) -> Config:
        """The heads that a process attends with."""
        if self.attention == "batch":
            return self.config
        sizes, parts = self.placement.sizes, self.torus.extent(self.inner)
        return replace(self.config, heads=sizes.heads // parts, kv_heads=max(sizes.kv_heads // parts, 1))


@dataclass(frozen=True)
class Attend:
    """Attention of the sequences in `rows`, of `length` tokens each; `attention` is that of this process's own."""

    where: Distribution
    rows: Rows
    length: int
    attention: Attention

    def __call__(self, layer: int, columns: Tensor) -> Tensor:
        """Attended columns (T, P * c) of projected ones (T, P, c)."""
        return self._over_heads(layer, columns) if self.where.attention == "heads" else self._over_batch(layer, columns)

    def _over_heads(self, layer: int, columns: Tensor) -> Tensor:
        where, tokens = self.where, len(columns)
        q, k, v = self._sections(columns)
        if where.sharing:
            both = where.torus.all_gather(torch.stack([k, v], 1), where.inner, "kv heads", where.sharing)
            k, v = both.permute(2, 1, 0, 3).reshape(2, tokens, -1)
        config = where.local
        keys = config.kv_heads * config.head_dim
        k, v = (x.reshape(tokens, config.kv_heads, -1)[..., : config.head_dim].reshape(tokens, keys) for x in (k, v))
        return self._attended(layer, torch.cat([q, k, v], 1))

    def _over_batch(self, layer: int, columns: Tensor) -> Tensor:
        """All columns of this process's sequences come, and their results go back."""
        where, torus, config = self.where, self.where.torus, self.where.config
        inner, members = where.inner, "".join(sorted(where.inner))
        parts, own = torus.extent(inner), self.rows.size * self.length
        filled = columns
        if not where.gathers:
            filled = columns.new_zeros(len(self.rows.batch), self.length, *columns.shape[1:])
            filled[torch.from_numpy(self.rows.slots)] = columns.reshape(-1, self.length, *columns.shape[1:])
        moved = torus.all_to_all(filled.reshape(parts, own, *columns.shape[1:]), members, inner, "heads to batch")
        q, k, v = self._sections(moved.permute(1, 0, 2, 3).flatten(1, 2))
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        attended = self._attended(layer, torch.cat([q[:, :queries], k[:, :keys], v[:, :keys]], 1))
        padded = torch.nn.functional.pad(attended, (0, q.shape[1] - queries))
        back = padded.reshape(own, parts, -1).permute(1, 0, 2)
        rows = torus.all_to_all(back, inner, members, "batch to heads").flatten(0, 1)
        if where.gathers:
            return rows
        return rows.reshape(-1, self.length, rows.shape[1])[torch.from_numpy(self.rows.slots)].flatten(0, 1)

    def _sections(self, columns: Tensor) -> list[Tensor]:
        """q, k and v (T, P * c) of blocks (T, P, c)."""
        return [x.flatten(1) for x in torch.split_with_sizes(columns, self.where.placement.sections, 2)]

    def _attended(self, layer: int, qkv: Tensor) -> Tensor:
        """Attention of a process's slots; what is in empty ones becomes zeros."""
        n, length = self.attention.shape
        filled = n * length
        config = self.where.local
        if not filled:
            return qkv.new_zeros(len(qkv), config.heads * config.head_dim)
        out: Tensor = self.attention(layer, qkv[:filled])
        return torch.nn.functional.pad(out, (0, 0, 0, len(qkv) - filled))
