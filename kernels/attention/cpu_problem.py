"""A problem as jitted code takes it: memory as vectors, where sequences lie in it, and the rules of the logits."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from .._dot import PAIRS, VECTOR
from .problem import Cache, Lengths, Scoring

Array = np.ndarray[Any, Any]

TYPES = {np.dtype(name): np.dtype(name) for name in ("float32", "float64", "int8", "uint8", "int64")}
TYPES |= {np.dtype(ml_dtypes.bfloat16): np.dtype(np.uint16), np.dtype(np.float16): np.dtype(np.int16)}
TYPES |= {np.dtype(bool): np.dtype(np.uint8)}
"""bfloat16 goes as uint16, float16 as int16, e4m3fn as uint8; Numba knows none of them."""

_NO_PAGES = np.empty((0, 0), np.int64)
_NO_SCALES = np.empty(0, np.float32)


Q, K, V, OUT, LSE = range(5)
"""The arrays, as numbers."""

BASE, QUERIES, KEYS = 0, 5, 6
"""Columns of `Places.sequences`: where a sequence begins in each array (BASE + Q and so on), and its lengths."""

HEAD, TOKEN, PAGE = 0, 5, 10
KV_HEADS, GROUP, DIM, VALUE_DIM, PAGE_TOKENS = range(15, 20)
"""Elements of `Places.sizes`: strides of a head, a token and a page in each array (HEAD + Q and so on), and shapes."""

LEFT, RIGHT, UPPER_LEFT, BIAS_STRIDE, MASK_STRIDE = 0, 1, 2, 3, 7
"""Elements of `Rules.numbers`; of the strides there are four."""


class Places(NamedTuple):
    """Vectors of memory, and where things are in them, in elements.

    Token t of head h of sequence n begins at ``sequences[n, BASE + Q] + h * sizes[HEAD + Q] + t * sizes[TOKEN + Q]``
    of q; for sequences in pages, see `cpu_lanes.name_keys`. Few arrays, for what kernels are called with is copied
    from function to function.
    """

    q: Any
    k: Any
    v: Any
    out: Any
    lse: Any
    k_scale: Any  # empty where keys are what they are; of page p, head h, token t: (p * heads + h) * page + t
    v_scale: Any
    table: Any  # (N, pages), or (0, 0)
    sequences: Any  # (N, 7) int64
    sizes: Any  # (20,) int64


class Rules(NamedTuple):
    """`Scoring` with arrays as vectors, empty where not given, and their strides."""

    scale: float
    softcap: float
    numbers: Any
    slopes: Any
    sinks: Any
    bias: Any
    mask: Any


class _Memory:
    """What NumPy makes an array of: the memory of another one, which is kept alive."""

    def __init__(self, interface: dict[str, Any], owner: Array) -> None:
        self.__array_interface__ = interface
        self.owner = owner


def flat(x: Array) -> Array:
    """The memory of `x` from its first to its last element as a vector; strides must not be negative.

    Writeable whatever `x` is, so that it is of the one type that kernels are compiled for.
    """
    kind = TYPES[x.dtype]
    if x.size == 0:
        return np.empty(0, kind)
    flags = x.flags
    if flags.c_contiguous and flags.writeable:
        return x.ravel() if kind is x.dtype else x.ravel().view(kind)
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)) // x.itemsize
    address = x.__array_interface__["data"][0]
    return np.asarray(_Memory({"data": (address, False), "shape": (span,), "typestr": kind.str, "version": 3}, x))


def in_pairs(dtype: Any, dim: int, value_dim: int, few: bool) -> bool:
    """Whether the products of queries and keys of this dtype are of pairs of bfloat16."""
    if not (PAIRS and dtype == ml_dtypes.bfloat16):
        return False
    step = 2 * VECTOR if few else 2
    return dim % step == 0 and (not few or value_dim % step == 0)


def is_regular(x: Array) -> bool:
    """Whether neighbours are side by side in the last axis, and no axis runs backwards."""
    return x.size == 0 or ((x.strides[-1] == x.itemsize or x.shape[-1] == 1) and min(x.strides) >= 0)


def places(q: Array, k: Array, v: Array, out: Array, lse: Array, lengths: Lengths) -> Places:
    """Of regular arrays."""
    arrays = (q, k, v, out, lse)
    batch, head, token = ([x.strides[axis] // x.itemsize for x in arrays] for axis in range(3))
    group = q.shape[1] // k.shape[1] if k.shape[1] else 1
    shape = (k.shape[1], group, q.shape[3], v.shape[3], 1)
    sizes = np.array([*head, *token, *batch, *shape])
    if lengths.cu_q is None:
        sequences = np.empty((q.shape[0], 7), np.int64)
        np.multiply.outer(np.arange(len(sequences)), sizes[PAGE : PAGE + 5], out=sequences[:, :QUERIES])
        queries, keys = q.shape[2], k.shape[2]
    else:
        sequences = np.empty((len(lengths.cu_q) - 1, 7), np.int64)
        for i, starts in enumerate((lengths.cu_q, lengths.cu_k, lengths.cu_k, lengths.cu_q, lengths.cu_q)):
            sequences[:, BASE + i] = starts[:-1] * token[i]
        queries, keys = np.diff(lengths.cu_q), np.diff(lengths.cu_k)
    sequences[:, QUERIES], sequences[:, KEYS] = queries, keys if lengths.kv is None else lengths.kv
    memory = [flat(x) for x in arrays]
    return Places._make((*memory, _NO_SCALES, _NO_SCALES, _NO_PAGES, sequences, sizes))


def cached(q: Array, cache: Cache, out: Array, lse: Array) -> Places:
    """Of sequences in pages; the pools are dense."""
    count, (_, kv_heads, page, _) = len(cache.lengths), cache.k.shape
    arrays = (q, cache.k, cache.v, out, lse)
    batch, head, token = zip(*([s // x.itemsize for s in x.strides[:3]] for x in arrays), strict=True)
    sizes = (*head, *token, *batch, kv_heads, q.shape[1] // kv_heads, q.shape[3], cache.v.shape[3], page)
    sequences = np.empty((count, 7), np.int64)
    sequences[:] = (batch[Q], 0, 0, batch[OUT], batch[LSE], q.shape[2], 0)
    sequences[:, :QUERIES] *= np.arange(count)[:, None]
    sequences[:, KEYS] = cache.lengths
    k_scale, v_scale = (_NO_SCALES if x is None else flat(x) for x in (cache.k_scale, cache.v_scale))
    table = np.ascontiguousarray(cache.table, np.int64).reshape(count, -1)
    memory = [flat(x) for x in arrays]
    return Places._make((*memory, k_scale, v_scale, table, sequences, np.array(sizes)))


def widened(cache: Cache) -> Cache:
    """The pages in use as float32, numbered anew; the cache itself if it is float32."""
    if cache.k.dtype == np.float32:
        return cache
    used = np.arange(cache.table.shape[1]) * cache.k.shape[2] < np.asarray(cache.lengths)[:, None]
    pages, numbers = np.unique(cache.table[used], return_inverse=True)
    table = np.zeros(used.shape, np.int64)
    table[used] = numbers
    pools = []
    for codes, scale in ((cache.k, cache.k_scale), (cache.v, cache.v_scale)):
        values = codes.view(ml_dtypes.float8_e4m3fn) if codes.dtype == np.uint8 else codes
        rows = values[pages].astype(np.float32)
        pools.append(rows if scale is None else rows * scale[pages][..., None])
    return Cache(pools[0], pools[1], None, None, table, cache.lengths)


def rules(scoring: Scoring, dtype: Any) -> Rules:
    """Arrays in `dtype`, float32 or float64, which is that of the logits."""
    if scoring.slopes is scoring.sinks is scoring.bias is scoring.mask is None:
        return _plain_rules(scoring, dtype)
    return _rules(scoring, dtype)


def _rules(scoring: Scoring, dtype: Any) -> Rules:
    none = np.empty(0, dtype)
    slopes, sinks = (none if x is None else np.array(x, dtype, order="C") for x in (scoring.slopes, scoring.sinks))
    bias, bias_strides = _spread(scoring.bias, dtype)
    mask, mask_strides = _spread(scoring.mask, bool)
    numbers = np.array([scoring.left, scoring.right, scoring.upper_left, *bias_strides, *mask_strides], np.int64)
    return Rules(float(scoring.scale), float(scoring.softcap), numbers, slopes, sinks, bias, mask)


_plain_rules = lru_cache(64)(_rules)
"""Without arrays: the layers of a model ask for the same in turn."""


def _spread(x: Array | None, dtype: Any) -> tuple[Array, tuple[int, int, int, int]]:
    """A vector and four strides, 0 where `x` is broadcast."""
    if x is None or x.size == 0:
        return np.empty(0, np.uint8 if dtype is bool else dtype), (0, 0, 0, 0)
    own = x[tuple(slice(None) if s else slice(0, 1) for s in x.strides)]
    if own.dtype != dtype or min(own.strides) < 0:
        own = np.ascontiguousarray(own, dtype)
    strides = tuple(s // own.itemsize if n > 1 else 0 for s, n in zip(own.strides, own.shape, strict=True))
    return flat(own), strides  # type: ignore[return-value]
