"""merge."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _options
from .._arrays import namespace
from ._scoring import alike, logit_dtype


def merge(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> tuple[Any, Any]:
    """Attention to the keys of a and of b, from attention to each: split and shared-prefix attention.

    ``lse = log(exp(lse_a) + exp(lse_b))`` and ``out = exp(lse_a - lse) out_a + exp(lse_b - lse) out_b``, exact up to
    rounding, so that merging may be nested in any order. Keys must not be in both; a sink is a key here: give it
    with one of the parts only.

    Parameters
    ----------
    out_a, out_b : (B, Hq, Sq, Dv) as `attention` gives them, or (T, Hq, Dv) of `attention_varlen`, of one shape and
        of one dtype: float32, bfloat16, float16 or float64
    lse_a, lse_b : natural logarithms (B, Hq, Sq), or (Hq, T), float32 (float64 with float64); -Inf where no key was
        allowed, whose out is then ignored

    Returns
    -------
    out, lse : of the same shapes and dtypes; accumulated in float32 (float64 of float64). Without a key in either
        part, out is 0 and lse -Inf; a NaN lse makes its out and lse NaN. Under torch differentiable with respect to
        all four.

    Raises
    ------
    TypeError for kinds of arrays and dtypes, ValueError for shapes and devices that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.attention import attention, merge
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = (rng.standard_normal((1, 2, n, 8)) for n in (3, 9, 9))
    >>> parts = [attention(q, k[:, :, s], v[:, :, s], return_lse=True) for s in (slice(0, 5), slice(5, 9))]
    >>> out, lse = merge(*parts[0], *parts[1])
    >>> bool(np.allclose(out, attention(q, k, v)))
    True
    """
    out_a, arrays = namespace(out_a)
    dtype = _options.floating(arrays, out_a, "out_a")
    wide = logit_dtype(arrays, out_a)
    out_b = alike(arrays, out_a, "out_b", out_b, (dtype,))
    lse_a, lse_b = (alike(arrays, out_a, name, x, (wide,)) for name, x in (("lse_a", lse_a), ("lse_b", lse_b)))
    _check_shapes(out_a, lse_a, out_b, lse_b)
    library = getattr(arrays, "torch", np)
    lse, shares = _shares(library, lse_a, lse_b)
    parts = []
    for out, log, share in zip((out_a, out_b), (lse_a, lse_b), shares, strict=True):
        empty = _along_rows(arrays, log == -np.inf, out)
        parts.append(library.where(empty, 0, arrays.cast(out, wide)) * _along_rows(arrays, share, out))
    return arrays.cast(parts[0] + parts[1], dtype), lse


def _shares(library: Any, lse_a: Any, lse_b: Any) -> tuple[Any, tuple[Any, Any]]:
    """The joint lse, and the shares of both sides in its exponential."""
    highest = library.maximum(lse_a, lse_b)
    highest = library.where(highest == -np.inf, 0, highest)
    if library is not np:
        highest = highest.detach()  # it cancels from the results
    a, b = library.exp(lse_a - highest), library.exp(lse_b - highest)
    empty = a + b == 0
    total = library.where(empty, 1, a + b)
    return library.where(empty, -np.inf, highest + library.log(total)), (a / total, b / total)


def _along_rows(arrays: Any, x: Any, out: Any) -> Any:
    """`x`, of the shape of an lse, against the rows of `out`."""
    return (x if len(out.shape) == 4 else arrays.permute(x, (1, 0)))[..., None]


def _check_shapes(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> None:
    shape = tuple(out_a.shape)
    if len(shape) not in (3, 4):
        raise ValueError(f"out_a has shape {shape}: expected (B, Hq, Sq, Dv), or (T, Hq, Dv)")
    logs = shape[:3] if len(shape) == 4 else (shape[1], shape[0])
    for name, x, expected in (("out_b", out_b, shape), ("lse_a", lse_a, logs), ("lse_b", lse_b, logs)):
        if tuple(x.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: expected {expected}, for out_a of shape {shape}")
