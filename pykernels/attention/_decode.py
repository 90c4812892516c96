"""decode."""

from __future__ import annotations

from typing import Any

from .._arrays import namespace
from .._dispatch import choose_backend, launcher
from . import _scoring
from ._cache import KVCache
from ._opaque import opaque
from ._operands import allocate, check_out


@opaque
def decode(
    q: Any,
    cache: KVCache,
    sequences: Any,
    *,
    layer: int = 0,
    causal: bool | str = "lower_right",
    scale: float | None = None,
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    sinks: Any = None,
    alibi_slopes: Any = None,
    return_lse: bool = False,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """`attention` of the last tokens of sequences to all that a cache has of them.

    Append or write the keys and values of new tokens first, then decode their queries. Queries of all heads of a
    group, and of all T tokens, read a key once, and keys of a small batch are read by all threads (or, of a GPU, all
    multiprocessors). The result is that of `attention` to ``cache.gather(sequence)``, but that codes of a quantized
    cache are used as they are.

    Parameters
    ----------
    q : (n, Hq, T, D), of the cache's kind of array and on its device; Hkv divides Hq
        Of the cache's dtype; for a quantized cache float32, bfloat16 or float16. Any strides. n and T may be 0.
    cache : KVCache
    sequences : n numbers of sequences, which may repeat
    layer : whose keys and values, 0 to ``cache.layers - 1``
    causal : "lower_right" or True: query i of T stands at token ``length - T + i``, and reads none after it
        Where a sequence has fewer than T tokens, its first queries stand before all of them and read nothing, so
        batches of different T may be padded in front. False, "upper_left": as for `attention`.
    scale, window, softcap, sinks, alibi_slopes : as for `attention`
    return_lse : whether to return the natural logarithm of the denominators as well
    out : array (n, Hq, T, Dv) of q's dtype to fill, of any strides, sharing no memory with `q`
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    out : (n, Hq, T, Dv) of q's dtype and kind; 0 for queries without an allowed key, as all of an empty sequence
    lse : with `return_lse`, (n, Hq, T) in float32; -Inf for such queries without a sink

    A sequence's bits do not depend on the batch around it nor on the number of threads, and NaN in it reaches no
    other. There is no gradient. A decode reads the cache of one moment, and calls of other threads to the same cache
    wait for it (on a GPU, until it is launched).

    Raises
    ------
    TypeError for dtypes, kinds of arrays and arguments of wrong type; ValueError for shapes and devices that do not
    fit, sequences that are not in the cache, options out of range as for `attention`, and an `out` of wrong shape or
    overlapping memory; NotImplementedError for a `q` that requires a gradient, under torch.compile, and for a backend
    that cannot run here. Nothing is written then.

    Examples
    --------
    A prefix that all sequences share is read once if its part of the attention, of the queries of all sequences as if
    they were heads, is merged with the rest; the same as forks of the prefix give:

    >>> import numpy as np
    >>> from pykernels.attention import KVCache, decode, merge
    >>> numbers = np.random.default_rng(0)
    >>> q, k, v = (numbers.standard_normal((3, heads, 1, 8), np.float32) for heads in (4, 2, 2))
    >>> shared = numbers.standard_normal((1, 2, 50, 8), np.float32)
    >>> cache = KVCache.paged(32, page_size=16, kv_heads=2, head_dim=8)
    >>> prefix = cache.new()
    >>> cache.append([prefix], shared, shared)
    >>> forks, rest = [cache.fork(prefix) for _ in q], [cache.new() for _ in q]
    >>> cache.append(forks, k, v)
    >>> cache.append(rest, k, v)
    >>> together = q.transpose(2, 1, 0, 3)  # (1, Hq, n * T, D)
    >>> out, lse = decode(together, cache, [prefix], causal=False, return_lse=True)
    >>> out, lse = out.transpose(2, 1, 0, 3), lse.transpose(2, 1, 0)
    >>> merged, _ = merge(out, lse, *decode(q, cache, rest, return_lse=True))
    >>> np.allclose(merged, decode(q, cache, forks), atol=1e-6)
    True
    """
    if not isinstance(cache, KVCache):
        raise TypeError(f"cache is a {type(cache).__name__}: expected a KVCache")
    q = _queries(q, cache)
    arrays = namespace(q)[1]
    asked = _scoring.scoring(
        arrays,
        q,
        q.shape[1],
        causal=causal,
        scale=scale,
        window=window,
        softcap=softcap,
        sinks=sinks,
        alibi_slopes=alibi_slopes,
    )
    layer, numbers = cache._layer(layer), cache._numbers(sequences, "q", q)
    shape, dtype = (*q.shape[:3], cache.value_dim), arrays.dtype_name(q)
    if out is not None:
        check_out(arrays, out, shape, q)
    backend = choose_backend(arrays, q, backend)
    launch = launcher("attention", backend, "decode")
    lse, logs = arrays.allocate(shape[:3], "float32", q, backend)
    with cache._lock:
        pages = cache._read(numbers, layer, backend)
        if out is not None and arrays.is_strided(out):
            result, target = out, arrays.strided(out, backend)
        else:
            result, target = allocate(arrays, shape, dtype, q, backend)
        if shape[0] and shape[1] and shape[2]:
            launch(arrays.strided(q, backend), pages, _scoring.raw(arrays, asked, None, backend), target, logs)
    if out is not None and result is not out:
        arrays.copy_into(out, result)
        result = out
    return (result, lse) if return_lse else result


def _queries(q: Any, cache: KVCache) -> Any:
    """`q`, checked to be queries for a cache."""
    q = cache._checked("q", q)
    if len(q.shape) != 4 or q.shape[3] != cache.head_dim or q.shape[1] % cache.kv_heads:
        raise ValueError(
            f"q has shape {tuple(q.shape)}: expected (n, Hq, T, {cache.head_dim}), Hq a multiple of {cache.kv_heads}"
        )
    arrays = namespace(q)[1]
    if arrays.needs_gradient(q):
        raise NotImplementedError(
            "q requires a gradient, which decode does not have: expected torch.no_grad() around it"
        )
    return q
