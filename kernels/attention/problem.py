"""What the launchers of all backends take: arrays of NumPy, or of torch for the gpu launchers."""

from __future__ import annotations

from typing import Any, NamedTuple


class Scoring(NamedTuple):
    """How logits come from products; see the definition of the family."""

    scale: float
    softcap: float = 0.0  # 0: none
    left: int = -1  # -1: no limit
    right: int = -1
    upper_left: bool = False
    slopes: Any = None  # (Hq,)
    bias: Any = None  # (B, Hq, Sq, Sk), any strides, of 0 where it is broadcast
    mask: Any = None  # the same, bool
    sinks: Any = None  # (Hq,)


class Lengths(NamedTuple):
    """Where sequences begin and end, int64; all None for a plain batch."""

    cu_q: Any = None  # (N + 1,)
    cu_k: Any = None  # (N + 1,)
    kv: Any = None  # (N,): keys of each sequence


class Cache(NamedTuple):
    """Pages of keys and values, and which of them each sequence has."""

    k: Any  # (P, Hkv, page, D): the dtype of q, int8, or uint8 codes of e4m3fn
    v: Any  # (P, Hkv, page, Dv)
    k_scale: Any  # (P, Hkv, page) float32, or None
    v_scale: Any
    table: Any  # (N, pages) int64; entries beyond the length are not read
    lengths: Any  # (N,) int64


class Pages(NamedTuple):
    """Pages of keys and values to write to: dense arrays, as in `Cache`.

    `store(k, v, pages, where)`: k (n, Hkv, T, D) and v (n, Hkv, T, Dv) with last strides of 1, alike in dtype; of the
    pages' dtype, or of float32, bfloat16 or float16 where these have scales. Token t of sequence n goes to row
    ``where[1, n, t]`` of page ``where[0, n, t]``, int64, C-contiguous; no two tokens go to one row.
    """

    k: Any  # (P, Hkv, page, D)
    v: Any  # (P, Hkv, page, Dv)
    k_scale: Any  # (P, Hkv, page) float32, or None
    v_scale: Any


class Window(NamedTuple):
    """Which pixels the queries of a block read."""

    block: int
    halo: int
    stride: int = 1
    masked: bool = False  # pixels outside of the image do not take part


class Gradients(NamedTuple):
    """Arrays to fill, as the arguments of `attention` that they belong to; None where not asked for."""

    q: Any
    k: Any
    v: Any
    bias: Any = None  # the shape that was broadcast: sizes of 1 where Scoring.bias has strides of 0
    sinks: Any = None
