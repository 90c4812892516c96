"""Where sequences begin and end: checks of the arrays that say so."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import namespace
from ..kernels.attention.problem import Lengths
from ._scoring import alike

INTEGERS = ("int64", "int32")


def integers(arrays: Any, q: Any, name: str, value: Any, count: int | None = None) -> Any:
    """`value` as int64 (count,) where `q` is; what its numbers are is left to `checked`, which has to read them."""
    value, kind = namespace(value)
    if kind is not arrays and not hasattr(kind, "torch"):
        value = arrays.from_numpy(value, q)
    value = arrays.cast(alike(arrays, q, name, value, INTEGERS), "int64")
    if len(value.shape) != 1 or (count is not None and value.shape[0] != count):
        expected = "one axis" if count is None else f"({count},), a number for each sequence"
        raise ValueError(f"{name} has shape {tuple(value.shape)}: expected {expected}")
    return value


def check_shapes(lengths: Lengths) -> None:
    """Refuse a ragged batch whose arrays are not of N + 1, N + 1 and N numbers."""
    n = lengths.cu_q.shape[0] - 1
    if n < 0 or lengths.cu_k.shape[0] - 1 != n:
        raise ValueError(
            f"cu_seqlens_q has {n + 1} and cu_seqlens_k {lengths.cu_k.shape[0]} numbers: expected N + 1 of both for N "
            "sequences"
        )
    if lengths.kv is not None and lengths.kv.shape[0] != n:
        raise ValueError(f"kv_lengths has shape {tuple(lengths.kv.shape)}: expected ({n},), a number for each sequence")


def checked(arrays: Any, q: Any, k: Any, lengths: Lengths, backend: str) -> Lengths:
    """The lengths as the launchers of a backend take them, for `q` (B, Hq, Sq, D) and `k` (B, Hkv, Sk, D).

    On a GPU their values are waited for, but not while a CUDA graph is captured, which then has them unchecked.
    """
    cu_q, cu_k, kv = lengths
    if cu_q is None and kv is None:
        return lengths
    if not arrays.capturing(q):
        most: Any = k.shape[2]
        if cu_q is not None:
            _covers("cu_seqlens_q", arrays.to_numpy(cu_q), q.shape[2])
            most = np.diff(_covers("cu_seqlens_k", arrays.to_numpy(cu_k), k.shape[2]))
        if kv is not None:
            _counts(arrays.to_numpy(kv), most)
    return raw(arrays, lengths, backend)


def raw(arrays: Any, lengths: Lengths, backend: str) -> Lengths:
    """Checked lengths as the launchers of a backend take them."""
    return Lengths(*(None if x is None else arrays.strided(x, backend) for x in lengths))


def _covers(name: str, ends: Any, tokens: int) -> Any:
    if ends[0] != 0 or ends[-1] != tokens or (ends[1:] < ends[:-1]).any():
        raise ValueError(f"{name}={ends.tolist()}: expected to ascend from 0 to {tokens}, the number of tokens")
    return ends


def _counts(counts: Any, most: Any) -> None:
    if ((counts < 0) | (counts > most)).any():
        limit = most if np.ndim(most) == 0 else most.tolist()
        raise ValueError(f"kv_lengths={counts.tolist()}: expected from 0 to {limit}, the number of keys")
