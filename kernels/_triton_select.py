"""The k best of each row in Triton, exact. The families `topk` and `search` share it.

A row that is longer than a program holds is read once, for the best key of every chunk of C
neighbours. The k best chunks, the first of equal ones, hold the k best elements: a chunk left out
has k others before it with an element at least as good as any of its own. What is left are n / C
keys and k * C candidates, both near sqrt(n * k), so the cost is that of reading n * itemsize bytes.

The threshold between chosen and other keys is found by bisection on the key, counting: at most as
many steps as a key has bits, over keys that stay in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ._triton import INTERPRETED
from ._triton_order import KEY, Order, order_key, order_of, raw, signed_key

RESIDENT_BYTES = 1 << (12 if INTERPRETED else 15)
"""Keys that a program holds in registers."""

TILE = 1 << 13
"""Elements of which a program takes the maxima of chunks."""

SMALLEST_CHUNK, LARGEST_CHUNK = 16, 512


ADD = tl.standard._sum_combine
"""What `tl.sum` reduces by. Calling that, the interpreter would take milliseconds more in every step of a loop."""


@triton.jit
def _better(a, b, LARGEST: tl.constexpr):
    if LARGEST:
        return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    else:
        return tl.minimum(a, b)


@triton.jit
def _chunk_keys(x, o: tl.constexpr, C: tl.constexpr, CHUNKS: tl.constexpr, HALVINGS: tl.constexpr):
    """The best key of each C neighbours. First come `HALVINGS`, of the elements themselves within a thread."""
    if x.dtype == tl.bfloat16:
        x = x.to(tl.float32)
    for step in tl.static_range(HALVINGS):
        left, right = tl.split(tl.reshape(x, (CHUNKS, C >> (step + 1), 2)))
        x = _better(left, right, o.largest)
    if o.kind == "float":
        if o.bits == 64:
            x = x.to(tl.int64, bitcast=True)
        elif x.dtype == tl.float16:
            x = x.to(tl.int16, bitcast=True)
        else:
            x = x.to(tl.int32, bitcast=True) >> (32 - o.bits)
    return tl.max(order_key(x, o), axis=1)


@triton.jit
def _chunk_keys_kernel(
    x_ptr, out_ptr, n, chunks, o: tl.constexpr, C: tl.constexpr, CHUNKS: tl.constexpr, HALVINGS: tl.constexpr
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    programs = tl.cdiv(chunks, CHUNKS)
    row = program // programs
    chunk = (program % programs) * CHUNKS
    i = chunk * C + tl.arange(0, CHUNKS * C)
    x_ptr += row * n
    if (chunk + CHUNKS) * C <= n:
        best = _chunk_keys(tl.load(x_ptr + i), o, C, CHUNKS, HALVINGS)
    else:
        best = _chunk_keys(tl.load(x_ptr + tl.minimum(i, n - 1)), o, C, CHUNKS, HALVINGS)
    chunk += tl.arange(0, CHUNKS)
    tl.store(out_ptr + row * chunks + chunk, signed_key(best), mask=chunk < chunks)


@triton.jit
def _place(runs_ptr, i, n, RUN: tl.constexpr):
    """Where in its row candidate i of n is: the row, or only its runs of RUN elements, are the candidates."""
    if RUN == 0:
        place = i.to(tl.int64)
    else:
        place = tl.load(runs_ptr + i // RUN, mask=i < n, other=0) * RUN + i % RUN
    return place


@triton.jit
def _keys(x_ptr, runs_ptr, i, n, length, o: tl.constexpr, RUN: tl.constexpr):
    """Keys of the candidates `i`; 0 where there is none, which is at the end."""
    place = _place(runs_ptr, i, n, RUN)
    found = (i < n) & (place < length)
    return tl.where(found, order_key(tl.load(x_ptr + place, mask=found, other=0), o), 0)


@triton.jit
def _threshold(
    first, k, x_ptr, runs_ptr, n, length, o: tl.constexpr, RUN: tl.constexpr, BLOCK: tl.constexpr, LONG: tl.constexpr
):  # fmt: skip
    """The k-th largest key, or one that just k keys reach; and how many keys are above it.

    `first` are the first BLOCK keys; the others of a `LONG` row are read in every step.
    """
    largest = first
    if LONG:
        for start in range(BLOCK, n, BLOCK):
            key = _keys(x_ptr, runs_ptr, start + tl.arange(0, BLOCK), n, length, o, RUN)
            largest = tl.maximum(largest, key)
    high = tl.max(largest)
    low = high - high
    while low < high:
        middle = high - (high - low) // 2
        reached = (first >= middle).to(tl.int32)
        if LONG:
            for start in range(BLOCK, n, BLOCK):
                key = _keys(x_ptr, runs_ptr, start + tl.arange(0, BLOCK), n, length, o, RUN)
                reached += (key >= middle).to(tl.int32)
        count = tl.reduce(reached, 0, ADD)
        low = tl.where(count >= k, middle, low)
        high = tl.where(count > k, high, tl.where(count == k, middle, middle - 1))
    above = (first > low).to(tl.int32)
    if LONG:
        for start in range(BLOCK, n, BLOCK):
            key = _keys(x_ptr, runs_ptr, start + tl.arange(0, BLOCK), n, length, o, RUN)
            above += (key > low).to(tl.int32)
    return low, tl.reduce(above, 0, ADD)


@triton.jit
def _append(better, equal, ties, taken, tied, x_ptr, place, number, values_ptr, indices_ptr):
    """Write what is `better`, and `equal` until there are `ties`, behind the `taken` and `tied` of earlier tiles."""
    counts = better.to(tl.int32) + (equal.to(tl.int32) << 16)
    until = tl.cumsum(counts, 0)
    until_tied = tied + (until >> 16)
    chosen = better | (equal & (until_tied <= ties))
    slot = taken + (until & 0xFFFF) + tl.minimum(until_tied, ties) - 1
    tl.store(indices_ptr + slot, number, mask=chosen)
    if values_ptr is not None:
        tl.store(values_ptr + slot, tl.load(x_ptr + place, mask=chosen, other=0), mask=chosen)
    total = tl.reduce(counts, 0, ADD)
    return taken + (total & 0xFFFF), tied + (total >> 16)


@triton.jit(do_not_specialize=["k"])
def _select_kernel(
    x_ptr, runs_ptr, ids_ptr, values_ptr, indices_ptr, length, n, k,
    o: tl.constexpr, RUN: tl.constexpr, BLOCK: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    """The k best of the n candidates of a row, in their order; of equal ones the first, or those of the lowest ids."""
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * length
    indices_ptr += row * k
    if RUN != 0:
        runs_ptr += row * (n // RUN)
    if values_ptr is not None:
        values_ptr += row * k
    i = tl.arange(0, BLOCK)
    place = _place(runs_ptr, i, n, RUN)
    key = _keys(x_ptr, runs_ptr, i, n, length, o, RUN)
    threshold, above = _threshold(key, k, x_ptr, runs_ptr, n, length, o, RUN, BLOCK, LONG)
    better, equal, ties = key > threshold, (key == threshold) & (i < n), k - above
    if ids_ptr is None:
        number = place
    else:
        number = tl.load(ids_ptr + row * length + i, mask=i < n, other=0)
        lowness = tl.where(equal, number.to(tl.uint64, bitcast=True) ^ 0x7FFFFFFFFFFFFFFF, 0)
        bound, lower = _threshold(lowness, ties, x_ptr, runs_ptr, n, length, o, RUN, BLOCK, False)
        better, equal, ties = better | (equal & (lowness > bound)), equal & (lowness == bound), ties - lower
    taken, tied = _append(better, equal, ties, 0, 0, x_ptr, place, number, values_ptr, indices_ptr)
    if LONG:
        for start in range(BLOCK, n, BLOCK):
            i = start + tl.arange(0, BLOCK)
            place = _place(runs_ptr, i, n, RUN)
            key = _keys(x_ptr, runs_ptr, i, n, length, o, RUN)
            better, equal = key > threshold, (key == threshold) & (i < n)
            taken, tied = _append(better, equal, ties, taken, tied, x_ptr, place, place, values_ptr, indices_ptr)


def resident(o: Order) -> int:
    """Keys that a program selects from without reading them again."""
    return RESIDENT_BYTES // (8 if o.bits == 64 else 4)


def chunk_size(n: int, k: int, o: Order) -> int:
    """Elements per chunk, or 0 where the candidates would be a large part of the row."""
    if n <= resident(o) or 4 * k * SMALLEST_CHUNK > n:
        return 0
    C = triton.next_power_of_2(int((0.6 * n / k) ** 0.5))
    while C > SMALLEST_CHUNK and k * C > resident(o):
        C //= 2
    return int(min(max(C, SMALLEST_CHUNK), LARGEST_CHUNK))


def best(x: torch.Tensor, k: int, o: Order, values: torch.Tensor | None, indices: torch.Tensor) -> None:
    """The k best of each row of `x` (R, n) into the raw `values` (or None) and the int64 `indices` (R, k),
    in the order of the indices. R and k are at least 1."""
    R, n = x.shape
    C = chunk_size(n, k, o)
    if C == 0:
        select(x, None, 0, None, k, o, values, indices)
        return
    chunks = triton.cdiv(n, C)
    keys = torch.empty(R, chunks, dtype=KEY[o.bits], device=x.device)
    together = TILE // C
    _chunk_keys_kernel[(R * triton.cdiv(chunks, together),)](
        x, keys, n, chunks, o=o, C=C, CHUNKS=together, HALVINGS={8: 4, 16: 3, 32: 2, 64: 1}[o.bits], num_warps=4
    )  # fmt: skip
    runs = torch.empty(R, k, dtype=torch.int64, device=x.device)
    best(keys, k, order_of(keys.dtype, True), None, runs)
    select(x, runs, C, None, k, o, values, indices)


def select(
    x: torch.Tensor,
    runs: torch.Tensor | None,
    run: int,
    ids: torch.Tensor | None,
    k: int,
    o: Order,
    values: torch.Tensor | None,
    indices: torch.Tensor,
) -> None:
    """The k best of the elements of each row, of those in its `runs`, or of the elements that carry `ids`.

    Rows with ids must be `resident`.
    """
    R, length = x.shape
    n = length if runs is None else runs.shape[1] * run
    BLOCK = max(16, triton.next_power_of_2(n)) if n <= resident(o) else resident(o) // 2
    _select_kernel[(R,)](
        raw(x), runs, ids, values, indices, length, n, k,
        o=o, RUN=run, BLOCK=BLOCK, LONG=n > BLOCK, num_warps=16 if n > BLOCK else max(1, BLOCK // 512),
    )  # fmt: skip
