"""The best of every bin: one coalesced pass over rotated stripes, the state of a bin in registers.

Bytes: n * itemsize read, bins * per_bin * (itemsize + 8) written. Operations per element: about 5 for the
key, and 3 for each of the `per_bin` ranks; on an H200 float16 at per_bin = 1 takes about the time of reading
it, and more ranks are bound by these operations.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import INTERPRETED, PROGRAMS, on_device_of
from .._triton_order import order_key, order_of, put_in_order, raw
from .._triton_select import best

IN_REGISTERS = 4
"""Largest number of survivors per bin that a program keeps; more are the top-k of each bin as a row."""


FEWEST_BINS = 32
"""Number of bins below which the lanes of a program have too little to do; such bins are rows, too."""

STEPS = 4 if INTERPRETED else 64
"""Fewest steps that are worth a program of their own."""


@triton.jit
def _insert(key, step, a, i, b, j, c, k, d, m, PER_BIN: tl.constexpr):
    """Keys a >= b >= c >= d of a bin and their steps, after `key`, which ranks behind its equals."""
    if PER_BIN > 3:
        m = tl.where(key > c, k, tl.where(key > d, step, m))
        d = tl.where(key > c, c, tl.maximum(d, key))
    if PER_BIN > 2:
        k = tl.where(key > b, j, tl.where(key > c, step, k))
        c = tl.where(key > b, b, tl.maximum(c, key))
    if PER_BIN > 1:
        j = tl.where(key > a, i, tl.where(key > b, step, j))
        b = tl.where(key > a, a, tl.maximum(b, key))
    i = tl.where(key > a, step, i)
    a = tl.maximum(a, key)
    return a, i, b, j, c, k, d, m


@triton.jit
def _rotation(step, bins):
    """The bin of the first element of a stripe, int32, of the integers `step`."""
    h = step.to(tl.uint32) * 0x9E3779B1
    h = (h ^ (h >> 15)) * 0x85EBCA77
    h ^= h >> 13
    return ((h.to(tl.uint64) * bins.to(tl.uint64)) >> 32).to(tl.int32)


@triton.jit
def _place(step, bins, lane, ROTATED: tl.constexpr):
    """Where the bins `lane` are in the stripe `step`."""
    if ROTATED:
        place = lane - _rotation(step, bins)
        return tl.where(place < 0, place + bins, place)
    else:
        return lane


@triton.jit
def _bin_keys(x_ptr, step, limit, bins, lane, o: tl.constexpr, ROTATED: tl.constexpr):
    """Keys of the bins at a step; 0, which no key is below, at and beyond the index `limit`."""
    start = step.to(tl.int64) * bins
    place = _place(step, bins, lane, ROTATED)
    found = (lane < bins) & (place < limit - start)
    return tl.where(found, order_key(tl.load(x_ptr + start + place, mask=found, other=0), o), 0)


@triton.jit
def _store_rank(x_ptr, values_ptr, indices_ptr, slot, step, bins, lane, ROTATED: tl.constexpr):
    i = step.to(tl.int64) * bins + _place(step, bins, lane, ROTATED)
    tl.store(indices_ptr + slot + lane, i, mask=lane < bins)
    tl.store(values_ptr + slot + lane, tl.load(x_ptr + i, mask=lane < bins, other=0), mask=lane < bins)


@triton.jit(do_not_specialize=["splits", "steps"])
def _partial_topk_kernel(
    x_ptr, values_ptr, indices_ptr, n, bins, splits, steps,
    o: tl.constexpr, PER_BIN: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, ROTATED: tl.constexpr,
):  # fmt: skip
    """`PER_BIN` best of BLOCK bins over one of the `splits` of a row, of `steps` steps each, the last to the end."""
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(bins, BLOCK)
    row = program // (blocks * splits)
    split = (program // blocks) % splits
    lane = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    x_ptr += row * n
    start = (split * steps).to(tl.int32)
    end = tl.where(split == splits - 1, tl.cdiv(n, bins), start + steps).to(tl.int32)
    limit = tl.where(split == splits - 1, n, end.to(tl.int64) * bins)

    a = tl.zeros((BLOCK,), tl.uint64 if o.bits == 64 else tl.uint32)
    i = tl.zeros((BLOCK,), tl.int32)
    b, c, d, j, k, m = a, a, a, i, i, i
    for rank in tl.static_range(PER_BIN):
        step = start + rank
        if rank == 0:
            i += step
        elif rank == 1:
            j += step
        elif rank == 2:
            k += step
        else:
            m += step
        key = _bin_keys(x_ptr, step, limit, bins, lane, o, ROTATED)
        a, i, b, j, c, k, d, m = _insert(key, step, a, i, b, j, c, k, d, m, rank + 1)
    for first in range(start + PER_BIN, end, UNROLL):
        for u in tl.static_range(UNROLL):
            step = first + u
            key = _bin_keys(x_ptr, step, limit, bins, lane, o, ROTATED)
            a, i, b, j, c, k, d, m = _insert(key, step, a, i, b, j, c, k, d, m, PER_BIN)

    slot = (row * splits + split) * PER_BIN * bins
    _store_rank(x_ptr, values_ptr, indices_ptr, slot, i, bins, lane, ROTATED)
    if PER_BIN > 1:
        _store_rank(x_ptr, values_ptr, indices_ptr, slot + bins, j, bins, lane, ROTATED)
    if PER_BIN > 2:
        _store_rank(x_ptr, values_ptr, indices_ptr, slot + 2 * bins, k, bins, lane, ROTATED)
    if PER_BIN > 3:
        _store_rank(x_ptr, values_ptr, indices_ptr, slot + 3 * bins, m, bins, lane, ROTATED)


def partial_topk(
    x: torch.Tensor, bins: int, per_bin: int, largest: bool, values: torch.Tensor, indices: torch.Tensor
) -> None:
    """The `per_bin` best of each bin of each row of `x`, rank by rank, (R, bins * per_bin)."""
    if values.numel() == 0:
        return
    with on_device_of(x):
        if per_bin > IN_REGISTERS or bins < FEWEST_BINS:
            _bin_by_bin(x, bins, per_bin, largest, values, indices)
        else:
            _partial_topk(x, bins, per_bin, largest, values, indices, rotated=True)


def _partial_topk(
    x: torch.Tensor, bins: int, per_bin: int, largest: bool, values: torch.Tensor, indices: torch.Tensor, rotated: bool
) -> None:
    """Survivors of parts of the rows are in slots: their stripes are not `rotated`."""
    R, n = x.shape
    o = order_of(x.dtype, largest)
    BLOCK = min(triton.next_power_of_2(bins), 1024)
    programs = R * triton.cdiv(bins, BLOCK)
    splits = max(1, min(n // bins // max(STEPS, per_bin), 4 * PROGRAMS // programs))
    survivors, numbers = values, indices
    if splits > 1:
        survivors = values.new_empty(R, splits * bins * per_bin)
        numbers = torch.empty(survivors.shape, dtype=torch.int64, device=x.device)
    _partial_topk_kernel[(programs * splits,)](
        raw(x), raw(survivors), numbers, n, bins, splits, n // bins // splits,
        o=o, PER_BIN=per_bin, BLOCK=BLOCK, UNROLL=4, ROTATED=rotated, num_warps=max(1, BLOCK // 256),
    )  # fmt: skip
    if splits > 1:
        places = torch.empty_like(indices)
        _partial_topk(survivors, bins, per_bin, largest, values, places, rotated=False)
        torch.gather(numbers, 1, places, out=indices)


def _bin_by_bin(
    x: torch.Tensor, bins: int, per_bin: int, largest: bool, values: torch.Tensor, indices: torch.Tensor
) -> None:
    """Bins as rows of their own: first those that have one element more, then the others."""
    R, n = x.shape
    o = order_of(x.dtype, largest)
    stripes = -(-n // bins)
    bin_of = torch.arange(bins, device=x.device)
    places = (bin_of[:, None] - _rotations(stripes, bins, x.device)) % bins
    members = torch.arange(stripes, device=x.device) * bins + places
    longer = members[:, -1] < n
    for chosen_bins, steps in ((bin_of[longer], stripes), (bin_of[~longer], stripes - 1)):
        B = len(chosen_bins)
        if B == 0:
            continue
        numbers = members[chosen_bins, :steps]
        elements = x[:, numbers].reshape(R * B, steps)
        shape = (R * B, per_bin)
        chosen, best_values = (torch.empty(shape, dtype=raw(x).dtype, device=x.device) for _ in range(2))
        found, order = (torch.empty(shape, dtype=torch.int64, device=x.device) for _ in range(2))
        best(elements, per_bin, o, chosen, found)
        put_in_order(chosen, found, o, best_values, order)
        ids = numbers.expand(R, B, steps).gather(2, order.view(R, B, per_bin))
        for out, ranks in ((raw(values), best_values), (indices, ids)):
            out.view(R, per_bin, bins)[:, :, chosen_bins] = ranks.view(R, B, per_bin).transpose(1, 2)


def _rotations(stripes: int, bins: int, device: torch.device) -> torch.Tensor:
    """The bin of the first element of each stripe."""
    h = torch.arange(stripes, device=device) * 0x9E3779B1 & 0xFFFFFFFF
    h = (h ^ h >> 15) * 0x85EBCA77 & 0xFFFFFFFF
    return (h ^ h >> 13) * bins >> 32
