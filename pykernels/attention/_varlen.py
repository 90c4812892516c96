"""attention_varlen."""

from __future__ import annotations

from typing import Any

from ..kernels.attention.problem import Lengths
from . import _lengths, _scoring
from ._attention import compute
from ._operands import check_out, operands


def attention_varlen(
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    *,
    causal: bool | str = False,
    scale: float | None = None,
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    sinks: Any = None,
    alibi_slopes: Any = None,
    kv_lengths: Any = None,
    return_lse: bool = False,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """`attention` of a ragged batch: N sequences, the tokens of all of them one after the other.

    The tokens of sequence n are ``cu_seqlens_q[n] : cu_seqlens_q[n + 1]`` of q, and those that it reads
    ``cu_seqlens_k[n] : cu_seqlens_k[n + 1]`` of k and v. Its result is that of `attention` of it alone, bit for bit.

    Parameters
    ----------
    q : (T, Hq, D)
    k, v : (Tk, Hkv, D) and (Tk, Hkv, Dv)
    cu_seqlens_q, cu_seqlens_k : int64 or int32 (N + 1,), ascending from 0 to T, and from 0 to Tk; sequences may be
        empty. Lists too, but not under torch.compile.
    kv_lengths : None, or int64 or int32 (N,): how many of the keys of each sequence count, the first ones
    out : array (T, Hq, Dv) of q's dtype to fill, of any strides, sharing no memory with the inputs
    causal, scale, window, softcap, sinks, alibi_slopes, backend : as for `attention`

    Returns
    -------
    out : (T, Hq, Dv) of q's dtype and kind
    lse : with `return_lse`, (Hq, T) in float32 (float64 for float64)

    Gradients, NaN, empty sequences and errors are those of `attention`; ValueError also for numbers that do not
    ascend, or do not cover the tokens. They are waited for on a GPU, but not during the capture of a CUDA graph.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.attention import attention_varlen
    >>> q, k = np.ones((3, 1, 2), np.float32), np.zeros((3, 1, 2), np.float32)
    >>> v = np.float32([1, 3, 10]).reshape(3, 1, 1)
    >>> attention_varlen(q, k, v, [0, 2, 3], [0, 2, 3])[:, 0, 0]
    array([ 2.,  2., 10.], dtype=float32)
    """
    arrays, q, k, v = operands(q, k, v, 3)
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
    lengths = Lengths(
        _lengths.integers(arrays, q, "cu_seqlens_q", cu_seqlens_q),
        _lengths.integers(arrays, q, "cu_seqlens_k", cu_seqlens_k),
        None if kv_lengths is None else _lengths.integers(arrays, q, "kv_lengths", kv_lengths),
    )
    _lengths.check_shapes(lengths)
    if out is not None:
        check_out(arrays, out, (*q.shape[:2], v.shape[2]), q, k, v)
    q, k, v, target = (None if x is None else arrays.permute(x, (1, 0, 2))[None] for x in (q, k, v, out))
    result, lse = compute(arrays, q, k, v, asked, lengths, target, backend)
    if out is None:
        out = arrays.permute(result[0], (1, 0, 2))
    return (out, lse[0]) if return_lse else out
