"""attention."""

from __future__ import annotations

from typing import Any

from .. import _options
from .._dispatch import choose_backend, launcher
from ..kernels.attention.problem import Lengths, Scoring
from . import _lengths, _scoring
from ._operands import allocate, check_out, operands


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool | str = False,
    scale: float | None = None,
    window: tuple[int, int] | None = None,
    softcap: float | None = None,
    sinks: Any = None,
    alibi_slopes: Any = None,
    bias: Any = None,
    mask: Any = None,
    kv_lengths: Any = None,
    return_lse: bool = False,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """Softmax attention ``softmax(scale * q k^T) v`` whose cost follows the keys and values that heads share.

    The definition is in `pykernels.kernels.attention`: a logit is ``scale * <q, k>``, then
    ``softcap * tanh(s / softcap)``, then ALiBi's ``-slope * |distance|``, then the bias; what is not allowed by
    `causal`, `window`, `mask` or `kv_lengths` has no influence, NaN included, and what lies beyond a length is
    never read. Logits are accumulated in float32 (float64 of float64). No matrix of Sq x Sk is held.

    Parameters
    ----------
    q : (B, Hq, Sq, D)
    k, v : (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv); Hkv divides Hq, and query head h reads key head ``h // (Hq / Hkv)``
        Arrays of NumPy or torch of the same dtype: float32, bfloat16, float16, or, but on a GPU, float64. Of any
        strides: views of (B, S, H, D) too; only arrays whose last axis is not contiguous, or with an axis that runs
        backwards, are copied. Any axis may be empty but D, Dv and the heads of keys.
    causal : False, True or "lower_right", or "upper_left": no query reads keys after its position. Query i stands at
        key ``i + Sk - Sq`` ("lower_right", the last query at the last key), or i ("upper_left")
    scale : None for ``D ** -0.5``
    window : None, or (left, right): how many keys before and after its position a query reads at most; -1 is no
        limit. Positions are those of `causal`, "lower_right" without it; with `causal`, right is 0
    softcap : None, or a positive bound of the logits
    sinks : None, or (Hq,): the logit of one more key of each head, which has no value but takes part in the
        denominator and in lse (attention sinks)
    alibi_slopes : None, or (Hq,); without a gradient (arXiv 2108.12409)
    bias : None, or floating-point numbers that broadcast to (B, Hq, Sq, Sk); never expanded in memory
    mask : None, or bool that broadcasts to (B, Hq, Sq, Sk): True where a key is allowed
        Bias, sinks and slopes are taken as float32 (float64 for float64).
    kv_lengths : None, or int64 or int32 (B,): the number of keys of each sequence, 0 to Sk, in place of Sk, for
        "lower_right" too
    return_lse : whether to return the natural logarithm of the denominators as well
    out : array (B, Hq, Sq, Dv) of q's dtype to fill, of any strides, sharing no memory with the inputs
    backend : None to follow the data, or "cpu", "gpu", "reference" (float64 inside, then rounded)

    Returns
    -------
    out : (B, Hq, Sq, Dv) of q's dtype and kind; where the heads of a token of q lie side by side in memory, as in a
        view of (B, Sq, Hq, D), so do those of out. A query without an allowed key gives 0.
    lse : with `return_lse`, (B, Hq, Sq) in float32 (float64 for float64): ``log(sum(exp(s)) + exp(sink))``; -Inf for
        a query without an allowed key and without a sink. `merge` needs it.

    A NaN or +Inf logit makes out and lse of its query NaN. The bits of a sequence do not depend on the batch around
    it, nor on the number of threads. Under torch, differentiable with respect to q, k, v, bias and sinks, through
    out and lse; the gradient is recomputed in blocks, without a matrix of Sq x Sk, and deterministic. Values of
    `kv_lengths` on a GPU are waited for, but not during the capture of a CUDA graph, where they are not checked.

    Raises
    ------
    TypeError for dtypes, kinds of arrays and arguments of wrong type; ValueError for shapes and devices that do not
    fit, lengths out of range, a window below -1, a softcap that is not positive, and an `out` of wrong shape or
    overlapping memory; NotImplementedError for float64 on a GPU, a gradient of the slopes, and a backend that cannot
    run here. Nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.attention import attention
    >>> q = np.ones((1, 2, 3, 4), np.float32)  # two query heads share one head of keys
    >>> k, v = np.zeros((1, 1, 3, 4), np.float32), np.arange(3, dtype=np.float32).reshape(1, 1, 3, 1)
    >>> attention(q, k, v, causal=True)[0, 0, :, 0]
    array([0. , 0.5, 1. ], dtype=float32)
    >>> out, lse = attention(q, k, v, kv_lengths=[2], return_lse=True)
    >>> out[0, 1, :, 0], np.exp(lse[0, 1]).round(3)
    (array([0.5, 0.5, 0.5], dtype=float32), array([2., 2., 2.], dtype=float32))
    """
    arrays, q, k, v = operands(q, k, v)
    shape = (*q.shape[:3], k.shape[2])
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
        bias=bias,
        mask=mask,
        shape=shape,
    )
    lengths = Lengths()
    if kv_lengths is not None:
        lengths = Lengths(kv=_lengths.integers(arrays, q, "kv_lengths", kv_lengths, q.shape[0]))
    if out is not None:
        check_out(arrays, out, (*q.shape[:3], v.shape[3]), q, k, v, bias, mask)
    result, lse = compute(arrays, q, k, v, asked, lengths, out, backend)
    return (result, lse) if return_lse else result


def compute(
    arrays: Any, q: Any, k: Any, v: Any, asked: Scoring, lengths: Lengths, out: Any, backend: str | None
) -> tuple[Any, Any]:
    """Attention of arrays (B, H, S, D) and its lse, through an operator where torch needs one."""
    tracing = arrays.tracing()
    if tracing:
        _options.follows_data(backend)
    if tracing or any(x is not None and arrays.needs_gradient(x) for x in (q, k, v, asked.bias, asked.sinks)):
        result, lse = arrays.operators("attention").attention(q, k, v, asked, lengths, backend)
        return (result if out is None else out.copy_(result)), lse
    return forward(arrays, q, k, v, asked, lengths, out, backend)


def forward(
    arrays: Any, q: Any, k: Any, v: Any, asked: Scoring, lengths: Lengths, out: Any, backend: str | None
) -> tuple[Any, Any]:
    """As `compute`, by a launcher, now."""
    backend = choose(arrays, q, backend)
    launch = launcher("attention", backend, "attention")
    counted = _lengths.checked(arrays, q, k, lengths, backend)
    dtype, shape = arrays.dtype_name(q), (*q.shape[:3], v.shape[3])
    lse, logs = arrays.allocate(shape[:3], _scoring.logit_dtype(arrays, q), q, backend)
    if out is not None and arrays.is_strided(out):
        result, target = out, arrays.strided(out, backend)
    else:
        result, target = allocate(arrays, shape, dtype, q, backend)
    if shape[0] and shape[1] and shape[2]:
        q, k, v = (arrays.strided(x, backend) for x in (q, k, v))
        launch(q, k, v, _scoring.raw(arrays, asked, (*shape[:3], k.shape[2]), backend), counted, target, logs)
    if out is not None and result is not out:
        arrays.copy_into(out, result)
        result = out
    return result, lse


def choose(arrays: Any, q: Any, backend: str | None) -> str:
    """The backend for `q`; raises where the one asked for cannot take it."""
    backend = choose_backend(arrays, q, backend)
    if backend == "gpu" and arrays.dtype_name(q) == "float64":
        raise NotImplementedError("q has dtype float64, which the gpu backend does not compute: expected float32")
    return backend
