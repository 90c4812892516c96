"""KVCache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from threading import Lock
from typing import Any

import numpy as np

from .. import _options
from .._options import integers
from ..kernels.attention.problem import Cache
from ._mirror import Mirror
from ._opaque import opaque
from ._pages import PageTable
from ._pools import FLOATS, LARGEST, Place, Pool, stored_dtype

Array = np.ndarray[Any, Any]


class KVCache:
    """Keys and values of sequences that grow, for `decode`; made by `KVCache.contiguous` or `KVCache.paged`.

    Tokens are kept in pages. A paged cache hands out pages as sequences grow, and its capacity is their total; a
    contiguous one has one page of `max_length` tokens for each sequence. A page costs
    ``kv_heads * page_size * (head_dim + value_dim)`` numbers, and if quantized 8 bytes of scales for each token and
    head.

    Parameters
    ----------
    max_sequences, max_length : how many sequences a contiguous cache holds, and how many tokens of each
    num_pages, page_size : how many pages a paged cache has, and how many tokens each holds; any number of sequences
    kv_heads, head_dim : of keys, Hkv and D
    value_dim : of values, Dv; None for head_dim
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
    kv_heads, head_dim, value_dim, dtype, device, page_size, num_pages : as above; `dtype` is a name, `page_size` of a
        contiguous cache is `max_length` and `num_pages` is `max_sequences`
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
        self, pages: PageTable, kv_heads: int, head_dim: int, value_dim: int | None, dtype: Any, device: Any
    ) -> None:
        self.kv_heads = _options.integer("kv_heads", kv_heads, 1)
        self.head_dim = _options.integer("head_dim", head_dim, 1)
        self.value_dim = self.head_dim if value_dim is None else _options.integer("value_dim", value_dim, 1)
        self.dtype = stored_dtype(dtype)
        self._place = Place("cpu" if device is None and str(dtype).startswith("torch.") else device)
        self.device = self._place.device
        self._pages = pages
        self._lock = Lock()
        self._mirror = Mirror(self._place, pages)
        self._k, self._v = (
            Pool(self._place, (self.num_pages, self.kv_heads, self.page_size, width), self.dtype)
            for width in (self.head_dim, self.value_dim)
        )

    @classmethod
    def contiguous(
        cls,
        max_sequences: int,
        max_length: int,
        kv_heads: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        dtype: Any = "float32",
        device: Any = None,
    ) -> KVCache:
        """A cache of up to `max_sequences` sequences of up to `max_length` tokens; see `KVCache`."""
        slots = _options.integer("max_sequences", max_sequences, 1)
        length = _options.integer("max_length", max_length, 1)
        return cls(PageTable(slots, length, 1, slots), kv_heads, head_dim, value_dim, dtype, device)

    @classmethod
    def paged(
        cls,
        num_pages: int,
        page_size: int,
        kv_heads: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        dtype: Any = "float32",
        device: Any = None,
    ) -> KVCache:
        """A cache of `num_pages` pages of `page_size` tokens, for any number of sequences; see `KVCache`."""
        pages = _options.integer("num_pages", num_pages, 1)
        size = _options.integer("page_size", page_size, 1)
        return cls(PageTable(pages, size, pages, None), kv_heads, head_dim, value_dim, dtype, device)

    def __repr__(self) -> str:
        return (
            f"KVCache of {self.num_pages} pages of {self.page_size} tokens, {self.free_pages} free, "
            f"{self.kv_heads} heads of {self.head_dim} and {self.value_dim}, {self.dtype}, device {self.device}"
        )

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
    def nbytes(self) -> int:
        return self._k.nbytes + self._v.nbytes

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
        given = integers("sequences", sequences)
        with self._lock:
            lengths: Array = self._pages.lengths[self._pages.slots_of(given)]
        return lengths

    @opaque
    def append(self, sequences: Any, k: Any, v: Any) -> None:
        """Append T tokens to each of n sequences.

        Parameters
        ----------
        sequences : n distinct numbers
        k, v : (n, Hkv, T, D) and (n, Hkv, T, Dv), of any strides, of the cache's kind of array and on its device
            Of its dtype; for a quantized cache both of float32, bfloat16 or float16. n and T may be 0.

        Raises
        ------
        What all methods raise, and ValueError for a sequence that is named twice; MemoryError if a contiguous cache's
        sequence would exceed `max_length`, or if there are not enough free pages for all n.
        """
        k, v = self._tokens("k", k, self.head_dim), self._tokens("v", v, self.value_dim)
        if k.shape[:3] != v.shape[:3]:
            raise ValueError(f"k has shape {tuple(k.shape)} and v {tuple(v.shape)}: expected a value for every key")
        given = self._numbers(sequences, "k", k)
        if len(set(given.tolist())) < len(given):
            raise ValueError(f"sequences={given.tolist()}: expected distinct numbers")
        keys, values = self._k.encoded(k), self._v.encoded(v)
        with self._lock:
            slots = self._pages.slots_of(given)
            if len(slots) and k.shape[2]:
                growth = self._pages.plan(slots, k.shape[2])
                where = self._place.indices(growth.page, growth.row)
                for pool, kept in ((self._k, keys), (self._v, values)):
                    if len(growth.sources):
                        pool.copy(self._place.indices(growth.sources, growth.copies), growth.filled)
                    pool.write(where, kept)
                self._pages.grow(growth)

    @opaque
    def gather(self, sequence: int) -> tuple[Any, Any]:
        """Copies of the keys (Hkv, length, D) and values (Hkv, length, Dv) of a sequence.

        They are of the cache's dtype, or, of a quantized cache, what the codes mean, in float32.
        """
        with self._lock:
            where = self._place.indices(*self._pages.located(self._slot(sequence)))
            return self._k.read(where), self._v.read(where)

    @contextmanager
    def _reading(self, sequences: Array, backend: str) -> Iterator[Cache]:
        """What the launchers of a backend read of sequences; nothing of it changes meanwhile."""
        with self._lock:
            table, lengths = self._mirror.rows(self._pages.slots_of(sequences), backend)
            pools = (self._k.values, self._v.values, self._k.scale, self._v.scale)
            k, v, k_scale, v_scale = (None if x is None else self._place.launched(x, backend) for x in pools)
            yield Cache(k, v, k_scale, v_scale, table, lengths)

    def _slot(self, sequence: Any) -> int:
        if not isinstance(sequence, Integral) or isinstance(sequence, bool):
            raise TypeError(f"sequence={sequence!r}: expected the number of a sequence")
        return self._pages.slot_of(int(sequence))

    def _tokens(self, name: str, x: Any, width: int) -> Any:
        """`x`, checked to be tokens that this cache takes."""
        x = self._checked(name, x)
        if len(x.shape) != 4 or x.shape[1] != self.kv_heads or x.shape[3] != width:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: expected (n, {self.kv_heads}, T, {width})")
        return x

    def _checked(self, name: str, x: Any) -> Any:
        return self._place.checked(name, x, FLOATS if self.dtype in LARGEST else (self.dtype,))

    def _numbers(self, sequences: Any, name: str, x: Any) -> Array:
        """The numbers of as many sequences as `x` has, which may not be in the cache."""
        given: Array = integers("sequences", sequences)
        if len(given) != x.shape[0]:
            raise ValueError(f"sequences has shape {given.shape}: expected ({x.shape[0]},), as {name} has {x.shape[0]}")
        return given
