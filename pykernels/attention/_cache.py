"""KVCache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import _options
from ..kernels.attention.problem import Cache, Pages
from ._grown import Grown
from ._mirror import Mirror
from ._opaque import opaque
from ._pages import Growth, PageTable
from ._pools import CODES, FLOATS, Place, Pools, stored_dtype
from ._sequences import Sequences

Array = np.ndarray[Any, Any]


class KVCache(Sequences):
    """Keys and values of sequences that grow, for `decode`; made by `KVCache.contiguous` or `KVCache.paged`.

    Tokens are kept in pages. A paged cache hands out pages as sequences grow, and its capacity is their total; a
    contiguous one has one page of `max_length` tokens for each sequence. A page costs
    ``layers * kv_heads * page_size * (head_dim + value_dim)`` numbers, and if quantized 8 bytes of scales for each
    token, head and layer.

    Parameters
    ----------
    max_sequences, max_length : how many sequences a contiguous cache holds, and how many tokens of each
    num_pages, page_size : how many pages a paged cache has, and how many tokens each holds; any number of sequences
    kv_heads, head_dim : of keys, Hkv and D
    value_dim : of values, Dv; None for head_dim
    layers : how many keys and values of each token are kept, by layers of a model that share pages and lengths
    dtype : how keys and values are kept, a name, or a dtype of NumPy, ml_dtypes or torch
        "float32", "bfloat16" or "float16"; or codes with a float32 scale for each token and head, "int8" or
        "float8_e4m3fn" (also "e4m3fn"): the largest magnitude of D numbers becomes 127 or 448, the others are rounded
        to nearest. Then numbers are off by at most 1 / 254 of the largest (int8), or 1 / 16 of themselves (e4m3fn;
        less than 2**-10 / 448 of the largest below 2**-6 / 448 of it). If one of the D is NaN or Inf, all of them
        become NaN. Scales are at least 2**-126, so zeros stay zeros, and subnormal numbers lose precision.
    device : None for NumPy arrays, or a torch device: keys, values, queries and results are tensors there, "cpu" too
        With a dtype of torch, None means "cpu".

    Sequences are numbers from 0, never used twice. Every method checks all that it is given and raises before it
    changes anything: TypeError for arguments of wrong type, dtype or kind of array; ValueError for shapes and devices
    that do not fit and for sequences that are not in the cache, never made or freed; MemoryError where there is no
    room, so that what was asked for may succeed when other sequences have been freed or truncated.

    Any number of threads may call any methods, and `decode`; each call sees the cache of one moment.
    Memory is reserved at once, but in main memory the system hands it out as it is written.

    Attributes
    ----------
    kv_heads, head_dim, value_dim, layers, dtype, device, page_size, num_pages : as above; `dtype` is a name,
        `page_size` of a contiguous cache is `max_length` and `num_pages` is `max_sequences`
    free_pages : how many pages no sequence has
    sequences : the numbers of all sequences, ascending
    nbytes : bytes of keys, values and scales, used or not

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.attention import KVCache, decode
    >>> cache = KVCache.paged(8, page_size=2, kv_heads=1, head_dim=4)
    >>> a = cache.new()
    >>> cache.append([a], np.zeros((1, 1, 3, 4), np.float32), np.float32([3, 6, 9]).repeat(4).reshape(1, 1, 3, 4))
    >>> b = cache.fork(a)  # shares the pages of a until either writes to them
    >>> cache.append([b], np.zeros((1, 1, 1, 4), np.float32), np.full((1, 1, 1, 4), 2, np.float32))
    >>> cache.lengths([a, b]), cache.free_pages
    (array([3, 4]), 5)
    >>> decode(np.ones((2, 2, 1, 4), np.float32), cache, [a, b])[:, 0, 0, 0]
    array([6., 5.], dtype=float32)
    >>> cache.truncate(b, 2)
    >>> cache.free(a)
    >>> cache.sequences, cache.free_pages
    ([1], 7)
    """

    def __init__(
        self,
        pages: PageTable,
        kv_heads: int,
        head_dim: int,
        value_dim: int | None,
        layers: int,
        dtype: Any,
        device: Any,
    ) -> None:
        super().__init__(pages)
        self.kv_heads = _options.integer("kv_heads", kv_heads, 1)
        self.head_dim = _options.integer("head_dim", head_dim, 1)
        self.value_dim = self.head_dim if value_dim is None else _options.integer("value_dim", value_dim, 1)
        self.layers = _options.integer("layers", layers, 1)
        self.dtype = stored_dtype(dtype)
        self._place = Place("cpu" if device is None and str(dtype).startswith("torch.") else device)
        self.device = self._place.device
        self._mirror = Mirror(self._place, pages)
        shape = (self.layers, self.num_pages, self.kv_heads, self.page_size)
        self._pools = Pools(self._place, shape, (self.head_dim, self.value_dim), self.dtype)

    @classmethod
    def contiguous(
        cls,
        max_sequences: int,
        max_length: int,
        kv_heads: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        layers: int = 1,
        dtype: Any = "float32",
        device: Any = None,
    ) -> KVCache:
        """A cache of up to `max_sequences` sequences of up to `max_length` tokens; see `KVCache`."""
        slots = _options.integer("max_sequences", max_sequences, 1)
        length = _options.integer("max_length", max_length, 1)
        return cls(PageTable(slots, length, 1, slots), kv_heads, head_dim, value_dim, layers, dtype, device)

    @classmethod
    def paged(
        cls,
        num_pages: int,
        page_size: int,
        kv_heads: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        layers: int = 1,
        dtype: Any = "float32",
        device: Any = None,
    ) -> KVCache:
        """A cache of `num_pages` pages of `page_size` tokens, for any number of sequences; see `KVCache`."""
        pages = _options.integer("num_pages", num_pages, 1)
        size = _options.integer("page_size", page_size, 1)
        return cls(PageTable(pages, size, pages, None), kv_heads, head_dim, value_dim, layers, dtype, device)

    def __repr__(self) -> str:
        layers = "" if self.layers == 1 else f"{self.layers} layers, "
        return (
            f"KVCache of {layers}{self.num_pages} pages of {self.page_size} tokens, {self.free_pages} free, "
            f"{self.kv_heads} heads of {self.head_dim} and {self.value_dim}, {self.dtype}, device {self.device}"
        )

    @property
    def nbytes(self) -> int:
        return self._pools.nbytes

    @opaque
    def append(self, sequences: Any, k: Any, v: Any) -> None:
        """Append T tokens to each of n sequences of a cache of one layer; for more, see `grow`.

        Parameters
        ----------
        sequences : n distinct numbers
        k, v : (n, Hkv, T, D) and (n, Hkv, T, Dv), of any strides, of the cache's kind of array and on its device
            Of its dtype; for a quantized cache both of float32, bfloat16 or float16. n and T may be 0.

        Raises
        ------
        What all methods raise, and ValueError for a sequence that is named twice and for a cache of several layers;
        MemoryError if a contiguous cache's sequence would exceed `max_length`, or if there are not enough free pages
        for all n.
        """
        if self.layers != 1:
            raise ValueError(f"append to a cache of {self.layers} layers: expected grow, and write for each layer")
        k, v = self._tokens("k", k, self.head_dim), self._tokens("v", v, self.value_dim)
        if k.shape[:3] != v.shape[:3]:
            raise ValueError(f"k has shape {tuple(k.shape)} and v {tuple(v.shape)}: expected a value for every key")
        given = self._distinct(self._numbers(sequences, "k", k))
        with self._lock:
            slots = self._pages.slots_of(given)
            if len(slots) and k.shape[2]:
                growth = self._plan(slots, k.shape[2])
                self._pools.write(0, k, v, self._place.sent(growth.where))
                self._pages.grow(growth)

    @opaque
    def grow(self, sequences: Any, tokens: int) -> Grown:
        """Give each of n sequences room for T more tokens, whose keys and values `write` fills in, layer by layer.

            grown = cache.grow(sequences, 1)
            for layer in range(cache.layers):
                cache.write(grown, layer, k, v)
                out = decode(q, cache, sequences, layer=layer)

        Lengths count the tokens at once; until they are written, what the cache has of them is undefined, and forks
        made of the sequences share it.

        Parameters
        ----------
        sequences : n distinct numbers
        tokens : T, which may be 0 as n may

        Raises what `append` raises, and nothing has changed then.
        """
        given = self._distinct(_options.integers("sequences", sequences))
        count = _options.integer("tokens", tokens, 0)
        with self._lock:
            slots = self._pages.slots_of(given)
            grown = Grown(self._pages, self._place, given, self._pages.lengths[slots], count)
            if len(slots) and count:
                self._pages.grow(self._plan(slots, count))
        return grown

    @opaque
    def write(self, grown: Grown, layer: int, k: Any, v: Any) -> None:
        """Write the keys and values of one layer, 0 to `layers` - 1, of the tokens that sequences have grown by.

        `k` and `v` are as for `append`, with the n and T of `grown`. ValueError if one of the sequences has been
        freed, or truncated so that it lacks some of the tokens.
        """
        if not isinstance(grown, Grown):
            raise TypeError(f"grown is a {type(grown).__name__}: expected what KVCache.grow returns")
        if not grown.of(self._pages):
            raise ValueError("grown is of another cache: expected what grow of this one returned")
        layer = self._layer(layer)
        k, v = self._tokens("k", k, self.head_dim), self._tokens("v", v, self.value_dim)
        for name, x in (("k", k), ("v", v)):
            if (x.shape[0], x.shape[2]) != grown.positions.shape:
                n, tokens = grown.positions.shape
                raise ValueError(
                    f"{name} has shape {tuple(x.shape)}: expected {(n, self.kv_heads, tokens, x.shape[3])}, as grown"
                )
        if grown.positions.size:
            with self._lock:
                self._pools.write(layer, k, v, grown.where())

    @opaque
    def gather(self, sequence: int, layer: int = 0) -> tuple[Any, Any]:
        """Copies of the keys (Hkv, length, D) and values (Hkv, length, Dv) of a sequence in one layer.

        They are of the cache's dtype, or, of a quantized cache, what the codes mean, in float32.
        """
        layer = self._layer(layer)
        with self._lock:
            slot = self._slot(sequence)
            positions = np.arange(self._pages.lengths[slot])
            where = self._place.sent(self._pages.located(np.array([slot]), positions[None]))
            return self._pools.read(layer, where[:, 0])

    def _read(self, sequences: Array, layer: int, backend: str) -> Cache:
        """What the launchers of a backend read of sequences, while the lock is held."""
        table, lengths = self._mirror.rows(sequences, backend)
        pools = self._pools.layers[layer]
        if backend != self._place.backend:
            pools = Pages(*(None if x is None else self._place.launched(x, backend) for x in pools))
        return Cache(*pools, table, lengths)

    @contextmanager
    def _step(self, grown: Grown) -> Iterator[tuple[Pages, Array, Cache]]:
        """All layers of pages in main memory, where in them tokens go that sequences have grown by, and what these have
        then, in layer 0; the lock is held meanwhile."""
        with self._lock:
            yield self._pools.whole, grown.where(), self._read(grown.sequences, 0, "cpu")

    def _plan(self, slots: Array, tokens: int) -> Growth:
        """How sequences grow, when pages that they may no longer share have been copied."""
        growth = self._pages.plan(slots, tokens)
        if len(growth.sources):
            self._pools.copy(growth.sources, growth.copies, growth.filled)
        return growth

    def _layer(self, layer: Any) -> int:
        return _options.integer("layer", layer, 0, self.layers - 1)

    def _distinct(self, sequences: Array) -> Array:
        if len(set(sequences.tolist())) < len(sequences):
            raise ValueError(f"sequences={sequences.tolist()}: expected distinct numbers")
        return sequences

    def _tokens(self, name: str, x: Any, width: int) -> Any:
        """`x`, checked to be tokens that this cache takes."""
        x = self._checked(name, x)
        if len(x.shape) != 4 or x.shape[1] != self.kv_heads or x.shape[3] != width:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: expected (n, {self.kv_heads}, T, {width})")
        return x

    def _checked(self, name: str, x: Any) -> Any:
        return self._place.checked(name, x, FLOATS if self.dtype in CODES else (self.dtype,))

    def _numbers(self, sequences: Any, name: str, x: Any) -> Array:
        """The numbers of as many sequences as `x` has, which may not be in the cache."""
        given: Array = _options.integers("sequences", sequences)
        if len(given) != x.shape[0]:
            raise ValueError(f"sequences has shape {given.shape}: expected ({x.shape[0]},), as {name} has {x.shape[0]}")
        return given
