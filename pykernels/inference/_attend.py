"""The attention of a block: from rows of queries, keys and values to rows of results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .._arrays import namespace
from ..attention import KVCache, attention, decode
from ..kernels.decoder.problem import Rotary
from ._config import Config
from ._kernels import rotary


class Rotation(NamedTuple):
    cos: Any  # (P, D / 2)
    sin: Any
    positions: Any  # (n, T)


class Kept(NamedTuple):
    """Sequences of a cache that have grown by T tokens, whose keys and values are not written yet."""

    cache: KVCache
    grown: Any  # of KVCache.grow
    sequences: Any


@dataclass(frozen=True)
class Attention:
    """Attention of n sequences of T tokens each, to themselves or also to what a cache has of them."""

    config: Config
    shape: tuple[int, int]
    rotation: Rotation | None
    kept: Kept | None

    def __call__(self, layer: int, qkv: Any) -> Any:
        """Rows (n * T, Hq * D) of the rows `qkv` (n * T, (Hq + 2 Hkv) * D), which are turned in place."""
        c, arrays = self.config, namespace(qkv)[1]
        keys = c.heads + c.kv_heads
        heads = arrays.permute(qkv.reshape(*self.shape, keys + c.kv_heads, c.head_dim), (0, 2, 1, 3))
        if self.rotation is not None:
            rotary(heads[:, :keys], *self.rotation, Rotary())
        q, k, v = heads[:, : c.heads], heads[:, c.heads : keys], heads[:, keys:]
        window = None if c.window is None else (c.window - 1, 0)
        if self.kept is None:
            out = attention(q, k, v, causal=True, window=window)
        else:
            cache, grown, sequences = self.kept
            cache.write(grown, layer, k, v)
            out = decode(q, cache, sequences, layer=layer, window=window)
        return arrays.permute(out, (0, 2, 1, 3)).reshape(-1, c.heads * c.head_dim)
