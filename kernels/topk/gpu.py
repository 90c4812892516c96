"""Triton launchers, with the names and signatures of `reference`, for contiguous torch tensors.

Bytes: `topk` reads the row once, n * itemsize, and little more (see `_triton_select`), so it should
run at the read bandwidth; on an H200, 256 rows of 1 M float16 are 0.54 GB, 0.11 ms at 4.8 TB/s.
"""

from __future__ import annotations

import torch

from .._triton import on_device_of
from .._triton_order import order_of, put_in_order, ranking, raw
from .._triton_select import best, resident
from .._triton_select import select as select_candidates
from .gpu_partial import partial_topk

__all__ = ["partial_topk", "select", "topk"]


def topk(x: torch.Tensor, k: int, largest: bool, ordered: bool, values: torch.Tensor, indices: torch.Tensor) -> None:
    """The k best of each row of `x` (R, n) into `values` (R, k) and the int64 `indices` (R, k)."""
    R, n = x.shape
    if R == 0 or k == 0:
        return
    o = order_of(x.dtype, largest)
    with on_device_of(x):
        if n > resident(o) and 4 * k > n:
            first = ranking(raw(x), o)[:, :k]
            indices.copy_(first if ordered else torch.sort(first, dim=1).values)
            values.copy_(x.gather(1, indices))
        elif ordered:
            chosen, places = torch.empty_like(raw(values)), torch.empty_like(indices)
            best(x, k, o, chosen, places)
            put_in_order(chosen, places, o, raw(values), indices)
        else:
            best(x, k, o, raw(values), indices)


def select(
    x: torch.Tensor, ids: torch.Tensor, k: int, largest: bool, values: torch.Tensor, indices: torch.Tensor
) -> None:
    """The k best of the candidates `x` (R, n), which carry distinct int64 `ids` (R, n), in order."""
    R, n = x.shape
    if R == 0 or k == 0:
        return
    o = order_of(x.dtype, largest)
    with on_device_of(x):
        chosen, numbers = torch.empty_like(raw(values)), torch.empty_like(indices)
        if n <= resident(o):
            select_candidates(x, None, 0, ids, k, o, chosen, numbers)
        else:
            ids, by_id = torch.sort(ids, dim=1)
            best(x.gather(1, by_id), k, o, chosen, numbers)
            numbers = ids.gather(1, numbers)
        put_in_order(chosen, numbers, o, raw(values), indices)
