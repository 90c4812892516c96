"""The order of a ranking in Triton: keys, and sorting by them. The families `topk` and `search` share it.

Elements become unsigned keys that rise with the ranking, uint64 of 64-bit types and uint32 of others.
Elements themselves are copied as bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ._triton import FLAT, warps

COUNTED = 512
"""Up to here, counting the elements that rank before each is sooner done than a sort."""


class Order(NamedTuple):
    """What the bits of an element mean, and whether large ones are the best."""

    bits: int
    kind: str
    infinity: int
    largest: bool


KEY = {8: torch.int32, 16: torch.int32, 32: torch.int32, 64: torch.int64}
"""Type of the keys that memory holds, by the bits of the elements."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_INFINITIES = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F800000, torch.float64: 0x7FF << 52}


def order_of(dtype: torch.dtype, largest: bool) -> Order:
    """The ranking of elements of `dtype`."""
    if dtype in _INFINITIES:
        return Order(8 * dtype.itemsize, "float", _INFINITIES[dtype], largest)
    return Order(8 * dtype.itemsize, "unsigned" if dtype == torch.uint8 else "signed", 0, largest)


def raw(x: torch.Tensor) -> torch.Tensor:
    """The bits of `x` as integers."""
    return x if x.dtype == torch.uint8 else x.view(_INTEGERS[x.element_size()])


@triton.jit
def order_key(x, o: tl.constexpr):
    """Keys of raw elements, the larger the better. Every NaN has the same, -0.0 that of 0.0."""
    width: tl.constexpr = 64 if o.bits == 64 else 32
    if o.bits == 64:
        x = x.to(tl.int64)
        key = x.to(tl.uint64, bitcast=True)
    else:
        x = x.to(tl.int32)
        key = x.to(tl.uint32, bitcast=True)
    if o.kind == "float":
        sign = x >> (width - 1)
        magnitude = x & ((1 << (o.bits - 1)) - 1)
        signed = tl.sub(magnitude ^ sign, sign, sanitize_overflow=False)
        key = tl.add(signed, o.infinity, sanitize_overflow=False).to(key.dtype, bitcast=True)
        key = tl.minimum(key, 2 * o.infinity + 1)
    elif o.kind == "signed":
        key = key ^ (1 << (width - 1))
    if not o.largest:
        key = ~key
    return key


@triton.jit
def signed_key(key):
    """Keys as memory holds them: signed integers of the same order."""
    if key.dtype == tl.uint64:
        signed = (key ^ (1 << 63)).to(tl.int64, bitcast=True)
    else:
        signed = (key ^ (1 << 31)).to(tl.int32, bitcast=True)
    return signed


@triton.jit(do_not_specialize=["k"])
def _rank_kernel(
    x_ptr, ids_ptr, values_ptr, indices_ptr, k, o: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr
):  # fmt: skip
    """Put each of a row's k elements behind as many as rank before it."""
    programs = tl.cdiv(k, BLOCK)
    row = tl.program_id(0).to(tl.int64) // programs
    i = (tl.program_id(0) % programs) * BLOCK + tl.arange(0, BLOCK)[:, None]
    x_ptr += row * k
    ids_ptr += row * k
    x = tl.load(x_ptr + i, mask=i < k, other=0)
    number = tl.load(ids_ptr + i, mask=i < k, other=0)
    key = order_key(x, o)
    rank = tl.zeros((BLOCK, OTHERS), tl.int32)
    for start in range(0, k, OTHERS):
        j = start + tl.arange(0, OTHERS)[None, :]
        other_key = order_key(tl.load(x_ptr + j, mask=j < k, other=0), o)
        other = tl.load(ids_ptr + j, mask=j < k, other=0)
        earlier = (other < number) | ((other == number) & (j < i))
        rank += ((j < k) & ((other_key > key) | ((other_key == key) & earlier))).to(tl.int32)
    slot = row * k + tl.sum(rank, axis=1)[:, None]
    tl.store(values_ptr + slot, x, mask=i < k)
    tl.store(indices_ptr + slot, number, mask=i < k)


@triton.jit(do_not_specialize=["n"])
def _keys_kernel(x_ptr, out_ptr, n, o: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key = order_key(tl.load(x_ptr + i, mask=i < n, other=0), o)
    tl.store(out_ptr + i, signed_key(key), mask=i < n)


def ranking(x: torch.Tensor, o: Order) -> torch.Tensor:
    """Positions of the raw elements of each row of `x` (R, n) from best to worst; equal ones in their order."""
    keys = torch.empty(x.shape, dtype=KEY[o.bits], device=x.device)
    _keys_kernel[(triton.cdiv(x.numel(), FLAT),)](
        x, keys, x.numel(), o=o, BLOCK=FLAT, num_warps=warps(FLAT, keys.element_size())
    )
    return torch.sort(keys, dim=1, descending=True, stable=True).indices


def put_in_order(x: torch.Tensor, ids: torch.Tensor, o: Order, values: torch.Tensor, indices: torch.Tensor) -> None:
    """Sort the raw `x` (R, k) and its `ids` by the ranking, equal elements by the lowest id, into raw outputs."""
    R, k = x.shape
    if k <= COUNTED:
        _rank_kernel[(R * triton.cdiv(k, 16),)](x, ids, values, indices, k, o=o, BLOCK=16, OTHERS=64, num_warps=4)
        return
    by_id = torch.argsort(ids, dim=1, stable=True)
    order = by_id.gather(1, ranking(x.gather(1, by_id), o))
    torch.gather(x, 1, order, out=values)
    torch.gather(ids, 1, order, out=indices)
